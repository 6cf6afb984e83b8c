"""Item vectors in blocks, each in its process, rank as all of them do in one process."""

import pytest
import torch

from tests.conftest import in_two_processes
from twotower.distributed.sharding import Block
from twotower.retrieval import corpus as corpus_module
from twotower.retrieval import exact
from twotower.retrieval.corpus import Corpus, own_block
from twotower.types import HIDDEN_RANK

NUM_ITEMS = 11
USERS = ((0, 5), (5, 8))  # of each process


def world(num_interests):
    """Small whole numbers, so that scores are exact and many of them tie."""
    generator = torch.Generator().manual_seed(num_interests)

    def whole(*shape):
        return torch.randint(-2, 3, shape, generator=generator).float()

    user = whole(8, num_interests, 3) if num_interests else whole(8, 3)
    item = whole(NUM_ITEMS, 3)
    item[4] = 0
    # more columns in the first process; -1 pads; target 7 of user 1 is seen by it
    target = torch.tensor([[0, 3, 9], [7, -1, -1], [10, 5, -1], [1, -1, -1], [4, -1, -1]])
    targets = (target, torch.tensor([[6, 8], [2, -1], [9, -1]]))
    is_seen = torch.rand(8, NUM_ITEMS, generator=generator) < 0.3
    is_seen[1, 7] = True
    is_seen[6] = True  # of the second process: sees all but item 3
    is_seen[6, 3] = False
    return user, item, targets, is_seen


def ranked(corpus, user, target, is_seen, k):
    """Ranks, and the items of the lists by score, as the order of equal scores is free."""
    row, item = is_seen.nonzero(as_tuple=True)
    rank, lists = corpus.rank(user, target, row, item, k)
    return rank.tolist(), lists


def by_process(rank):
    """Everything that a corpus gives, of the users of this process."""
    exact.SCORES_PER_CHUNK = 20  # several chunks
    found = []
    for num_interests in (0, 2):
        user, item, targets, is_seen = world(num_interests)
        block = own_block(NUM_ITEMS)
        corpus = Corpus(item[block.first : block.first + block.num_own], block)
        own = slice(*USERS[rank])
        for users in (own, slice(0, 0) if rank else own):  # nobody in the second process
            number = len(user[users])
            ranks, lists = ranked(corpus, user[users], targets[rank][:number], is_seen[users], 8)
            found.append((ranks, lists.tolist()))
        assert corpus.rank(user[own], targets[rank], *NOTHING_SEEN)[1] is None
        rows = corpus.rows(torch.tensor([[10, 0, 4], [5]][rank]))
        found.append((rows.tolist(), corpus.zero_share(), corpus.mean_cosine(), len(corpus)))
        spoilt = corpus.own.clone()
        spoilt[-1, -1] = torch.nan if rank else 0
        found.append((corpus.is_finite(), Corpus(spoilt, block).is_finite()))
    return found


NOTHING_SEEN = (torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))


def test_blocks_rank_as_the_whole(tmp_path):
    found = in_two_processes(by_process, tmp_path / "rendezvous")
    for rank, parts in enumerate(found):
        for num_interests in (0, 2):
            user, item, targets, is_seen = world(num_interests)
            corpus, users = Corpus(item), slice(*USERS[rank])
            expected, _ = ranked(corpus, user[users], targets[rank], is_seen[users], 8)
            assert rank == 1 or expected[1][0] == HIDDEN_RANK
            (ranks, lists), again, whole, finite = parts[:4]
            del parts[:4]
            assert ranks == expected
            assert again == ((ranks, lists) if rank == 0 else ([], []))
            scores = user[users] @ item.T
            scores = scores.amax(1) if num_interests else scores
            scores[is_seen[users]] = -torch.inf
            best = scores.topk(8).values
            for row, (own, items) in enumerate(zip(scores, lists, strict=True)):
                is_item = torch.tensor(items) >= 0
                assert is_item.equal(best[row] > -torch.inf)
                shown = torch.tensor(items)[is_item]
                assert len(shown.unique()) == len(shown)
                assert own[shown].equal(best[row][is_item])
            rows, zero_share, mean_cosine, number = whole
            assert rows == item[[[10, 0, 4], [5]][rank]].tolist()
            assert (zero_share, number) == (corpus.zero_share(), NUM_ITEMS)
            assert zero_share > 0 and mean_cosine == pytest.approx(corpus.mean_cosine(), rel=1e-12)
            assert finite == (True, False)  # also where the other process has the bad vector


def one_item(rank):
    """The second process has none."""
    block = own_block(1)
    corpus = Corpus(torch.ones(1, 2)[: block.num_own], block)
    ranks, lists = corpus.rank(torch.ones(1, 2), torch.tensor([[0]]), *NOTHING_SEEN, 3)
    return block.num_own, ranks.tolist(), lists.tolist()


def test_a_process_without_items_ranks_those_of_the_other(tmp_path):
    found = in_two_processes(one_item, tmp_path / "rendezvous")
    assert found == [(1, [[1]], [[0]]), (0, [[1]], [[0]])]


def test_one_process_holds_all():
    assert own_block(NUM_ITEMS) is None
    chunks = [list(Block(0, 1, NUM_ITEMS).chunks(4, torch.device("cpu")))]
    chunks += [list(Block(rank, 2, 5).chunks(2, torch.device("cpu"))) for rank in (0, 1)]
    assert [[chunk.tolist() for chunk in part] for part in chunks] == [
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]],
        [[0, 1], [2]],
        [[3, 4], []],  # as many as in the first process
    ]


def test_vectors_are_looked_at_block_by_block(monkeypatch):
    vectors = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    whole = Corpus(vectors).mean_cosine()
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    assert whole == pytest.approx((cosine.sum().item() - 7) / 42, rel=1e-5)
    monkeypatch.setattr(corpus_module, "BLOCK", 2)
    assert Corpus(vectors).mean_cosine() == pytest.approx(whole, rel=1e-12)
    assert Corpus(vectors).is_finite()
    vectors[6, 1] = torch.inf
    assert not Corpus(vectors).is_finite()
