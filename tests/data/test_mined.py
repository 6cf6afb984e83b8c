"""Mined negatives: the items that the model ranks highest for the user."""

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from tests.helpers.table import trained_hit_rates
from twotower.data.batches.train_pairs import TrainPairs
from twotower.data.batches.vectors import Vectors
from twotower.data.mined_negatives import Mined, miners
from twotower.data.sampling import Mixed, Positives, Uniform
from twotower.errors import UserError

# users 0 and 1 have the items 0 and 1, and 2
USER, ITEM = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
# item i has the score i for the first two rows, and -i for the last
VECTORS = torch.arange(9.0)[:, None]
QUERIES = torch.tensor([[1.0], [1.0], [-1.0]])


class Fixed:
    """Vectors that count how often they are asked for."""

    def __init__(self, users=QUERIES, items=VECTORS):
        self.given, self.renewed = (users, items), 0

    def users(self):
        return self.given[0]

    def items(self):
        self.renewed += 1
        return self.given[1]


def positives(vectors, rank=0, world_size=1):
    pairs = TrainPairs(lambda: (USER, ITEM), 9)
    return Positives(ITEM, USER, pairs, rank, world_size, None, vectors)


def mined(num=2, skip=1, pool=2, every=100, exclude=True, approximate=False):
    return Mined(num, skip, pool, every, exclude, approximate)


@pytest.mark.parametrize("approximate", [False, True])
def test_the_best_after_the_skipped_ones(approximate):
    found = mined(approximate=approximate)(positives(Fixed()))
    assert found.item.shape == (3, 2) and found.num == 2 and found.log_q == 0
    # best first: 8 7 6 … for user 0; for user 1 0 1 3 …, as 2 is the positive
    assert [set(row) for row in found.item.tolist()] == [{7, 6}, {7, 6}, {1, 3}]


@pytest.mark.parametrize("approximate", [False, True])
def test_known_items_are_no_negatives_unless_asked_for(approximate):
    down = Fixed(users=torch.tensor([[-1.0], [-1.0], [-1.0]]))
    without = mined(skip=0, approximate=approximate)(positives(down)).item
    assert [set(row) for row in without.tolist()] == [{2, 3}, {2, 3}, {0, 1}]
    kept = mined(skip=0, exclude=False, approximate=approximate)(positives(down)).item
    # the row's own positive never is one
    assert [set(row) for row in kept.tolist()] == [{1, 2}, {0, 2}, {0, 1}]


@pytest.mark.parametrize("approximate", [False, True])
def test_a_small_corpus_is_filled_with_the_positive(approximate):
    found = mined(num=9, skip=5, pool=9, approximate=approximate)(positives(Fixed())).item
    # seven items are unknown to user 0, two are left after the skipped ones
    assert sorted(found[0].tolist()) == [0] * 7 + [2, 3]
    assert sorted(found[2].tolist()) == [2] * 6 + [6, 7, 8]


def test_draws_from_the_pool_are_random_and_without_replacement():
    torch.manual_seed(0)
    sampler = mined(num=2, skip=0, pool=3)
    drawn = {tuple(sorted(sampler(positives(Fixed())).item[0].tolist())) for _ in range(50)}
    assert drawn == {(7, 8), (6, 8), (6, 7)}


@pytest.mark.parametrize("approximate", [False, True])
def test_several_interests_of_a_user_count_by_the_best(approximate):
    users = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).expand(3, 2, 2)
    items = torch.zeros(9, 2)
    items[4], items[5], items[6] = (
        torch.tensor([3.0, 2.5]),
        torch.tensor([0.0, 2.0]),
        torch.tensor([1.0, 1.0]),
    )
    found = mined(num=3, skip=0, pool=3, approximate=approximate)(positives(Fixed(users, items)))
    assert set(found.item[2].tolist()) == {4, 5, 6}


def test_vectors_are_renewed_every_n_steps_and_after_a_checkpoint():
    fixed, sampler = Fixed(), mined(every=3)
    renewed = []
    for step in range(8):
        if step == 4:
            sampler.forget()
        sampler(positives(fixed))
        renewed.append(fixed.renewed)
    assert renewed == [1, 1, 1, 2, 3, 3, 3, 4]


def test_a_process_has_the_rows_of_the_whole_batch():
    torch.manual_seed(0)
    whole = mined(num=1, skip=0, pool=4)(positives(Fixed())).item
    for rank in (0, 1):
        torch.manual_seed(0)
        own = Fixed(users=QUERIES[rank::2])
        assert torch.equal(
            mined(num=1, skip=0, pool=4)(positives(own, rank, 2)).item, whole[rank::2]
        )


def test_impossible_settings_and_no_model():
    for wrong in ({"num": 0}, {"skip": -1}, {"num": 3, "pool": 2}, {"every": 0}):
        with pytest.raises(UserError, match="negatives\\."):
            mined(**wrong)
    with pytest.raises(UserError, match="needs the model in training"):
        mined()(positives(None))


def test_they_are_found_in_a_mixture():
    one = mined()
    assert miners(one) == [one] and miners(None) == miners(Uniform(2, False)) == []
    both = Mixed(one, Uniform(3, False))
    assert miners(both) == [one]
    assert both(positives(Fixed())).item.shape == (3, 5)


class Doubling(nn.Module):
    """Twice the features, and noise in training."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5)
        self.frozen.eval()

    def encode_user(self, features):
        return self.frozen(self.dropout(self.factor * features["x"]))

    encode_item = encode_user


def corpus():
    """Of three items, the last of which is new."""
    yield {"x": torch.ones(2, 1)}
    yield {"x": torch.ones(1, 1)}


def test_current_vectors_have_no_dropout_and_leave_the_model_as_it_was():
    model = Doubling()
    vectors = Vectors(model, {"x": torch.tensor([[2.0], [4.0]])}, corpus, 2)
    users = vectors.users()
    assert users.tolist() == [[4.0], [8.0]] and not users.requires_grad
    assert vectors.items().tolist() == [[2.0], [2.0]]
    assert model.training and model.dropout.training and not model.frozen.training


def shop(folder, num_users=400, num_groups=20, size=20):
    """Users choose from one group of items, and there only from a quarter that they like."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(num_users):
        group, quarter = rng.integers(num_groups), rng.integers(4)
        liked = group * size + 5 * quarter + np.arange(5)
        for time, item in enumerate(rng.permutation(liked)):
            rows.append((user, int(item), time))
    clicks = pl.DataFrame(rows, schema=["user", "item", "step"], orient="row")
    clicks.write_csv(folder / "clicks.csv")


MINED = ["negatives=mined_and_uniform", "negatives.first.skip=0", "negatives.first.pool=20"]
SETTINGS = [
    *("model=two_tower", "model.user_features=[user_id]", "loss/task=bce"),
    *("loss.task.temperature=0.2", "data.batch_size=128", "trainer.max_epochs=30"),
]


@pytest.mark.slow
def test_mined_items_teach_fine_differences(script):
    shop(script.folder)
    mixed = [*MINED, "negatives.first.every_n_steps=5", "negatives.second.num=2"]
    variants = {"uniform": ["negatives=uniform", "negatives.num=6"], "mined": mixed}
    found = {
        name: trained_hit_rates(script, [*SETTINGS, *more], {name: "seed=0"}, "ndcg@10")[name]
        for name, more in variants.items()
    }
    assert found["mined"] > 1.15 * found["uniform"], found
