"""Exact ranks against brute force, ties, masks and chunks included."""

import numpy as np
import pytest
import torch

from twotower.retrieval import exact
from twotower.retrieval.exact import target_ranks
from twotower.types import HIDDEN_RANK

NONE = torch.zeros(0, dtype=torch.long)


def test_ranks_by_hand():
    # scores 3, 1, 2, 2: item 0 first; items 2 and 3 tie, against the model: both third; item 1 last
    user, item = torch.tensor([[1.0]] * 4), torch.tensor([[3.0], [1.0], [2.0], [2.0]])
    rank = target_ranks(user, item, torch.tensor([[0], [1], [2], [3]]), NONE, NONE)
    assert rank[:, 0].tolist() == [1, 4, 3, 3]


def test_seen_items_do_not_compete_and_seen_targets_are_never_listed():
    user, item = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [2.0], [1.0]])
    seen_row, seen_item = torch.tensor([0, 1]), torch.tensor([0, 2])
    rank = target_ranks(user, item, torch.tensor([[2, 1], [2, 1]]), seen_row, seen_item)
    assert rank.tolist() == [[2, 1], [HIDDEN_RANK, 2]]
    _, shown = exact.top_k(user, item, seen_row, seen_item, 2)
    assert shown.tolist() == [[1, 2], [0, 1]]


def test_several_targets_and_padding():
    user, item = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [2.0], [1.0]])
    target = torch.tensor([[2, 0], [1, -1]])
    # item 0 is seen by user 1 and must stay masked although the padding points nowhere
    rank = target_ranks(user, item, target, torch.tensor([1]), torch.tensor([0]))
    assert rank.tolist() == [[3, 1], [1, 0]]


def test_nan_scores_never_help():
    user = torch.tensor([[1.0]])
    nan = torch.tensor([[float("nan")], [2.0], [1.0]])
    assert target_ranks(user, nan, torch.tensor([[0]]), NONE, NONE).item() == 3
    assert target_ranks(user, nan, torch.tensor([[1]]), NONE, NONE).item() == 2


@pytest.mark.parametrize("chunk", [1, 33, 10_000])
def test_against_brute_force_with_many_ties(monkeypatch, chunk):
    monkeypatch.setattr(exact, "SCORES_PER_CHUNK", chunk)
    rng = np.random.default_rng(0)
    user, item = rng.integers(-2, 3, size=(23, 3)), rng.integers(-2, 3, size=(31, 3))
    seen = rng.random((23, 31)) < 0.3
    target = rng.integers(31, size=23)
    expected = []
    for u in range(23):
        scores = [int(user[u] @ item[i]) for i in range(31)]
        rivals = [scores[i] for i in range(31) if i != target[u] and not seen[u, i]]
        rank = 1 + sum(score >= scores[target[u]] for score in rivals)
        expected.append(HIDDEN_RANK if seen[u, target[u]] else rank)
    rows, items = map(torch.tensor, np.nonzero(seen))
    rank = target_ranks(
        torch.tensor(user).float(),
        torch.tensor(item).float(),
        torch.tensor(target)[:, None],
        rows,
        items,
    )
    assert rank[:, 0].tolist() == expected


def test_several_interests_score_by_the_best(monkeypatch):
    """Ranks of ``max_k <u_k, v>``, the seen masked, whatever the chunks."""
    torch.manual_seed(0)
    user, item = torch.randn(7, 3, 4), torch.randn(20, 4)
    target, row, seen = torch.randint(20, (7, 1)), torch.tensor([0, 0, 4]), torch.tensor([3, 5, 9])
    scores = (
        torch.stack([torch.stack([(u @ v) for v in item]) for u in user.flatten(0, 1)])
        .view(7, 3, 20)
        .max(1)
        .values
    )
    scores[row, seen] = -torch.inf
    expected = (scores >= scores.gather(1, target)).sum(1, keepdim=True)
    expected[0] = HIDDEN_RANK  # user 0 has seen its target, item 3
    assert torch.equal(exact.target_ranks(user, item, target, row, seen), expected)
    monkeypatch.setattr(exact, "SCORES_PER_CHUNK", 120)  # two users at a time
    assert torch.equal(exact.target_ranks(user, item, target, row, seen), expected)


def test_chunks_fit_memory_and_on_a_cpu_its_cache():
    assert exact._rows_per_chunk(1 << 14, "cuda") == 2048  # 2^25 scores
    assert exact._rows_per_chunk(1 << 14, "cpu") == 64  # 2^20
    assert (
        exact._rows_per_chunk(1 << 20, "cpu") == 16
    )  # some rows, though 2^24 scores are no longer in the cache
    assert exact._rows_per_chunk(1 << 24, "cpu") == 2  # memory first
    assert exact._rows_per_chunk(1 << 26, "cpu") == 1


def test_top_k_leaves_out_what_each_user_has_seen(monkeypatch):
    item = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    user = torch.tensor([[1.0, 0.5], [0.0, 2.0], [1.0, 0.0]])
    seen_row, seen_item = torch.tensor([0, 2, 2, 2]), torch.tensor([0, 0, 1, 2])
    for rows in (3, 1):  # in one chunk and in three
        monkeypatch.setattr(exact, "_rows_per_chunk", lambda scores, device, rows=rows: rows)
        score, index = exact.top_k(user, item, seen_row, seen_item, 2)
        assert index[:2].tolist() == [[2, 1], [1, 2]] and index[2, 0] == 3
        torch.testing.assert_close(
            score, torch.tensor([[1.0, 0.5], [2.0, 1.6], [-1.0, float("-inf")]])
        )
    interests = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    score, index = exact.top_k(interests, item, seen_row[:0], seen_item[:0], 9)
    assert index.tolist() == [[1, 2, 0, 3]]  # 2, 1.6, 1, and the better of -1 and 0


def test_ranking_is_exact_in_a_run_of_mixed_precision():
    """Rounded to bfloat16, hundreds of these scores would tie."""
    torch.manual_seed(0)
    user, item, target = torch.randn(20, 16), torch.randn(2000, 16), torch.randint(2000, (20, 1))
    expected, (scores, items) = (
        target_ranks(user, item, target, NONE, NONE),
        exact.top_k(user, item, NONE, NONE, 50),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (user @ item.T).dtype == torch.bfloat16
        assert torch.equal(target_ranks(user, item, target, NONE, NONE), expected)
        found = exact.top_k(user, item, NONE, NONE, 50)
    assert torch.equal(found[0], scores) and torch.equal(found[1], items)


def test_top_k_masks_what_each_user_has_seen_in_every_chunk(monkeypatch):
    """Against sorting by hand, with users who have seen nothing and chunks without any."""
    generator = torch.Generator().manual_seed(0)
    user, item = torch.randn(23, 4, generator=generator), torch.randn(31, 4, generator=generator)
    seen = (torch.rand(23, 31, generator=generator) < 0.3) & (torch.arange(23) % 4 > 0)[:, None]
    seen[8:13] = False
    scores = (user @ item.T).masked_fill(seen, float("-inf"))
    expected = scores.sort(descending=True).indices[:, :5].tolist()
    row, index = seen.nonzero().T
    for rows in (1, 2, 5, 23, 100):
        monkeypatch.setattr(exact, "_rows_per_chunk", lambda scores, device, rows=rows: rows)
        assert exact.top_k(user, item, row, index, 5)[1].tolist() == expected


def test_the_corpus_is_filled_chunk_by_chunk():
    class Doubles(torch.nn.Module):
        def encode_item(self, features):
            return 2.0 * features["number"][:, None]

    chunks = [{"number": torch.arange(start, start + 3.0)} for start in (0, 3, 6)]
    whole = exact.encode_corpus(Doubles(), iter(chunks), 9)
    assert whole[:, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    first = exact.encode_corpus(Doubles(), iter(chunks), 4)  # such as the training items
    assert first[:, 0].tolist() == [0, 2, 4, 6]
