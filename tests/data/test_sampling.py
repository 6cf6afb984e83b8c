"""Samplers: what they draw, how often, what they say of it, and whom they spare."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.helpers.models import build
from twotower.data import sampling
from twotower.data.batches.train_pairs import TrainPairs
from twotower.data.sampling import (
    Corpus,
    InBatch,
    Mixed,
    Popularity,
    Positives,
    SharedUniform,
    Uniform,
)
from twotower.errors import UserError
from twotower.run.build import build_part

SAMPLERS = sorted(path.stem for path in (ROOT / "conf" / "negatives").glob("*.yaml"))
# user 0: items 0, 1, 2; user 1: items 2, 2 (bought twice) and 4; user 2: item 2.
# Counts: 1, 1, 4, 0 -> 1, 1
USER, ITEM = (
    torch.tensor([0, 0, 0, 1, 1, 1, 2], dtype=torch.int32),
    torch.tensor([0, 1, 2, 2, 4, 2, 2]),
)
PAIRS = TrainPairs(lambda: (USER, ITEM), 5)


def positives(user, item):
    return Positives(torch.tensor(item), torch.tensor(user), PAIRS)


def repeated(num):
    torch.manual_seed(0)
    row = torch.randint(len(ITEM), (num,))
    return Positives(ITEM[row], USER[row].long(), PAIRS)


def share(item):
    return torch.bincount(item.flatten(), minlength=5) / item.numel()


def test_pairs_contain_and_mask():
    expected = [
        [True, True, True, False, False],
        [False, False, True, False, True],
        [False, False, True, False, False],
    ]
    user, item = torch.arange(3), torch.arange(5)
    assert PAIRS.contain(user[:, None], item).tolist() == expected
    assert PAIRS.mask(user, item).tolist() == expected
    assert PAIRS.mask(torch.tensor([1, 1, 0]), torch.tensor([0, 3, 4])).tolist() == [
        [False, False, True],
        [False, False, True],
        [True, False, False],
    ]
    assert PAIRS.item_count.tolist() == [1, 1, 4, 1, 1]
    # Of fixed shape: the same, with items 5 and more as padding.
    assert PAIRS.mask(user, item, True).tolist() == expected
    padded = PAIRS.mask(user, torch.tensor([2, 7, 12]), True)
    assert padded.tolist() == [[True, False, False]] * 3


def test_uniform_draws_all_other_items_equally():
    p = repeated(20_000)
    own = Uniform(2, False)(p)
    assert (own.item != p.item[:, None]).all()
    torch.testing.assert_close(
        share((own.item - p.item[:, None]) % 5),
        torch.tensor([0, 0.25, 0.25, 0.25, 0.25]),
        atol=0.02,
        rtol=0,
    )
    assert own.log_q.item() == pytest.approx(math.log(1 / 4))


def test_shared_samplers():
    p = repeated(100)
    shared = SharedUniform(50_000, False)(p)
    torch.testing.assert_close(share(shared.item), torch.full((5,), 0.2), atol=0.02, rtol=0)
    assert shared.log_q.item() == pytest.approx(math.log(1 / 5))
    assert Corpus(False)(p).item.tolist() == [0, 1, 2, 3, 4]
    in_batch = InBatch(False)(p)
    assert torch.equal(in_batch.item, p.item)
    assert in_batch.log_q.exp().tolist() == pytest.approx([1 / 8, 1 / 8, 4 / 8, 1 / 8, 1 / 8])


@pytest.mark.parametrize("shared", [True, False])
def test_popularity_is_the_count_to_the_power(shared):
    # 4 ** 0.5 = 2 beside four ones: 1/6, 1/6, 2/6, 1/6, 1/6
    drawn = Popularity(20_000, 0.5, shared, False)(positives([2, 2], [2, 2]))
    expected = torch.tensor([1, 1, 2, 1, 1]) / 6
    assert drawn.item.shape == ((20_000,) if shared else (2, 20_000))
    torch.testing.assert_close(share(drawn.item), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.log_q, expected.log())


def test_mixed_has_the_mixture_s_probabilities():
    p = positives([0, 1, 2], [0, 4, 2])
    drawn = Mixed(InBatch(False), SharedUniform(6, False))(p)
    assert drawn.item[:3].tolist() == [0, 4, 2] and len(drawn.item) == 9
    # item 2: (3 * 4/8 + 6 * 1/5) / 9 = .3; the others: (3 * 1/8 + 6 * 1/5) / 9 = .175
    assert drawn.log_q.exp().tolist() == pytest.approx([0.175, 0.175, 0.3, 0.175, 0.175])


def test_mixed_refuses_shared_beside_own():
    with pytest.raises(UserError, match="negatives.first and negatives.second"):
        Mixed(InBatch(False), Uniform(2, False))(positives([0], [0]))


@pytest.mark.parametrize("sampler", [Uniform(50, True), Popularity(50, 1.0, False, True)])
def test_own_negatives_can_exclude_training_positives(sampler):
    """User 0 may get items 3 and 4, user 1 items 0, 1 and 3.

    Training positives that are left after four redraws become the row's positive.
    """
    p = positives([0] * 200 + [1] * 200, [1] * 200 + [4] * 200)
    item = sampler(p).item
    spared = item == p.item[:, None]  # masked by every loss
    assert not (PAIRS.contain(p.user[:, None], item) & ~spared).any()
    assert set(item[:200].unique().tolist()) == {1, 3, 4} and set(item[200:].unique().tolist()) == {
        0,
        1,
        3,
        4,
    }
    kind = share(item[:200][~spared[:200]])
    torch.testing.assert_close(kind[3:], torch.tensor([0.5, 0.5]), atol=0.03, rtol=0)


def test_redraws_leave_few_training_positives(monkeypatch):
    p = positives([2] * 5000, [2] * 5000)
    one_in_two = Popularity(
        1, 1.0, False, True
    )  # item 2 has half of the draws: 2 ** -5 are left after four redraws
    assert (one_in_two(p).item == 2).float().mean().item() == pytest.approx(1 / 32, abs=0.01)
    monkeypatch.setattr(sampling, "REDRAWS", 0)
    assert (one_in_two(p).item == 2).float().mean().item() == pytest.approx(1 / 2, abs=0.03)


@pytest.mark.parametrize(
    "sampler",
    [
        Corpus(True),
        SharedUniform(50, True),
        InBatch(True),
        Popularity(50, 1.0, True, True),
        Mixed(InBatch(True), SharedUniform(9, False)),
        Mixed(InBatch(False), SharedUniform(9, True)),
    ],
    ids=["corpus", "shared_uniform", "in_batch", "popularity", "mixed_first", "mixed_second"],
)
def test_a_batch_excludes_the_users_training_positives_and_no_others(data, sampler):
    data.negatives = sampler
    index = next(iter(data.train_dataloader()))
    batch = data.train_batch(index)
    interactions, train = data.train_interactions(), {}
    for user, item in zip(interactions.user.tolist(), interactions.item.tolist(), strict=True):
        train.setdefault(user, set()).add(item - 1)
    for row, user in enumerate(batch.user["user_id"].tolist()):
        assert set(batch.item_index[batch.excluded[row]].tolist()) == train[user] & set(
            batch.item_index.tolist()
        )
    data.negatives = Corpus(False)
    assert data.train_batch(index).excluded is None


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_feeds_a_batch(data, name):
    node = OmegaConf.load(ROOT / "conf" / "negatives" / f"{name}.yaml")
    data.negatives = build_part(OmegaConf.create({"negatives": node}), "negatives")
    num_items = data.schema.num_train_items
    shown = torch.randint(-1, num_items, (len(data.tables["interactions/item"]), 6))
    data.tables["interactions/shown"] = shown.int()
    model = build("two_tower", data)
    data.trainer = SimpleNamespace(
        global_rank=0, world_size=1, lightning_module=SimpleNamespace(model=model)
    )
    index = next(iter(data.train_dataloader()))
    batch, again = data.train_batch(index), data.train_batch(index)
    assert (batch.negative is None) != (batch.num_draws is None)
    assert (
        batch.log_q.dtype == torch.float32
        and batch.log_q.isfinite().all()
        and len(batch.log_q) == len(batch.item_index)
    )
    assert (batch.item_index < data.schema.num_train_items).all() and torch.equal(
        batch.item_index, again.item_index
    )


def test_the_caller_can_seed_a_batch(data):
    data.negatives = Uniform(3, False)
    index = next(iter(data.train_dataloader()))
    batch = data.train_batch(index)
    sampling.seed(index.seed, torch.device("cpu"))
    again = data.train_batch(index._replace(seed=0), seeded=True)
    assert torch.equal(batch.item_index[batch.negative], again.item_index[again.negative])


@pytest.mark.parametrize(
    "build",
    [
        lambda: Uniform(0, False),
        lambda: Popularity(3, -1.0, True, False),
        lambda: SharedUniform(0, False),
    ],
)
def test_impossible_draws_are_refused(build):
    with pytest.raises(UserError, match="negatives\\."):
        build()


def test_log_q_of_popularity_is_that_of_training(data):
    data.negatives = InBatch(False)
    batch = data.train_batch(next(iter(data.train_dataloader())))
    count = np.bincount(data.train_interactions().item - 1, minlength=data.schema.num_train_items)
    torch.testing.assert_close(
        batch.log_q, torch.tensor(np.log(count / count.sum()))[batch.item_index].float()
    )
    assert batch.num_draws.sum() == 16 and (batch.num_draws > 0).all()
