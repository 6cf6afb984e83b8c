"""The DAT loss on a real batch: which term sends gradient where, which term is there at all."""

import math

import pytest
import torch

from tests.helpers.losses import NoTask, gradients, paper_alignment
from tests.helpers.models import TWO_TOWER, first_batch, make_dat
from twotower.data.sampling import Corpus, InBatch, Mixed, SharedUniform, Uniform
from twotower.errors import UserError
from twotower.losses.alignment import pair_counts
from twotower.losses.bce import BCE
from twotower.losses.dat import DATLoss
from twotower.losses.softmax import Softmax
from twotower.models.two_tower import TwoTower


def make_loss(schema, task=None, lambda1=0.5, lambda2=0.25, lambda3=2.0, **changes):
    settings = {"reduction": "pairs", "over_dim": "sum", "alignment": paper_alignment, **changes}
    return DATLoss(schema, task or BCE(0.5), lambda1, lambda2, lambda3, **settings)


def test_mimic_user_trains_a_u_and_nothing_else(data):
    """With ``a_u`` detached from its tower, ``mimic_user`` trains only the batch's ``a_u``."""
    model = make_dat(data.schema, augment_gradient="mimic")
    batch = first_batch(data, Uniform(3, False))
    found = gradients(model, make_loss(data.schema, NoTask(), 0.7, 0, 0), batch)
    assert {name for name, size in found.items() if size > 0} == {"user_augmented.weight"}
    touched = model.user_augmented.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert set(touched.tolist()) == set(batch.user["user_id"].tolist())


def test_mimic_item_trains_a_v_of_positives_and_nothing_else(data):
    model = make_dat(data.schema, augment_gradient="mimic")
    batch = first_batch(data, Uniform(3, False))
    found = gradients(model, make_loss(data.schema, NoTask(), 0, 0.7, 0), batch)
    assert {name for name, size in found.items() if size > 0} == {"item_augmented.weight"}
    touched = model.item_augmented.weight.grad.abs().sum(1).nonzero()[:, 0]
    positives = batch.item["item_id"][batch.positive]
    assert set(touched.tolist()) == set(
        positives.tolist()
    )  # y = 0: the negatives' a_v gets nothing


def test_mimic_terms_cross(data):
    """``a_u`` mimics ``p_v``, ``a_v`` mimics ``p_u``; T counts the negatives."""
    batch = first_batch(data, Uniform(3, False))
    towers = make_dat(data.schema)(batch)
    terms = make_loss(data.schema)(towers, batch).terms
    num_pairs = len(batch.positive) * 4
    p_u, p_v = towers.user, towers.item[batch.positive]
    user = (
        sum(((a - p) ** 2).sum() for a, p in zip(towers.user_augmented, p_v, strict=True))
        / num_pairs
    )
    item = (
        sum(
            ((a - p) ** 2).sum()
            for a, p in zip(towers.item_augmented[batch.positive], p_u, strict=True)
        )
        / num_pairs
    )
    assert terms["mimic_user"].item() == pytest.approx(user.item(), rel=1e-5)
    assert terms["mimic_item"].item() == pytest.approx(item.item(), rel=1e-5)
    by_positive = make_loss(data.schema, reduction="positives")(towers, batch).terms
    assert by_positive["mimic_user"].item() == pytest.approx(4 * user.item(), rel=1e-5)


def test_total_is_the_weighted_sum(data):
    batch = first_batch(data, Uniform(3, False))
    output = make_loss(data.schema)(make_dat(data.schema)(batch), batch)
    t = output.terms
    expected = t["task"] + 0.5 * t["mimic_user"] + 0.25 * t["mimic_item"] + 2 * t["alignment"]
    assert output.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert t["alignment"] > 0


@pytest.mark.parametrize("name", ["lambda1", "lambda2", "lambda3"])
def test_a_zero_weight_removes_its_term(data, name):
    batch = first_batch(data, Uniform(3, False))
    terms = make_loss(data.schema, **{name: 0})(make_dat(data.schema)(batch), batch).terms
    gone = {"lambda1": "mimic_user", "lambda2": "mimic_item", "lambda3": "alignment"}[name]
    assert set(terms) == {"task", "mimic_user", "mimic_item", "alignment"} - {gone}


@pytest.mark.parametrize("augment_gradient", ["both", "mimic", "task"])
def test_augment_gradient_selects_the_losses_that_train_augmented_vectors(data, augment_gradient):
    batch = first_batch(data, Uniform(3, False))
    model = make_dat(data.schema, augment_gradient=augment_gradient)
    from_task = gradients(model, make_loss(data.schema, BCE(0.5), 0, 0, 0), batch)[
        "user_augmented.weight"
    ]
    from_mimic = gradients(model, make_loss(data.schema, NoTask(), 1, 1, 0), batch)
    assert (from_task > 0) == (augment_gradient in ("both", "task"))
    # under "task" the mimic loss reaches no parameter of a_u
    assert (from_mimic["user_augmented.weight"] > 0) == (augment_gradient in ("both", "mimic"))


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, "abc", True])
def test_impossible_weights_are_refused(data, weight):
    with pytest.raises(UserError, match="loss.lambda3"):
        make_loss(data.schema, lambda3=weight)


def test_a_model_without_augmented_vectors_is_refused(data):
    batch = first_batch(data, Uniform(3, False))
    towers = TwoTower(data.schema, **TWO_TOWER)(batch)
    with pytest.raises(UserError, match="model=dat"):
        make_loss(data.schema)(towers, batch)
    assert make_loss(data.schema, lambda1=0, lambda2=0)(towers, batch).terms.keys() == {
        "task",
        "alignment",
    }


def test_alignment_without_categories_is_refused(data):
    with pytest.raises(UserError, match="loss.lambda3=0"):
        make_loss(data.schema._replace(num_categories=0))


def test_bce_refuses_shared_negatives(data):
    batch = first_batch(data, SharedUniform(5, False))
    with pytest.raises(UserError, match="negatives=uniform"):
        make_loss(data.schema)(make_dat(data.schema)(batch), batch)


@pytest.mark.parametrize(
    "sampler", [InBatch(False), Mixed(SharedUniform(7, False), InBatch(False))]
)
def test_in_batch_negatives_are_the_positives_once_each(data, sampler):
    batch = first_batch(data, sampler)
    drawn = 0 if isinstance(sampler, InBatch) else 7
    assert pair_counts(batch).sum() == len(batch.positive) + drawn
    assert (
        pair_counts(batch) >= torch.bincount(batch.positive, minlength=len(batch.item_index))
    ).all()


@pytest.mark.parametrize(
    ("negatives", "task"),
    [
        (Uniform(3, False), BCE(0.5)),
        (Uniform(3, False), Softmax(0.2, True)),
        (SharedUniform(50, False), Softmax(0.2, True)),
        (Corpus(False), Softmax(0.2, False)),
    ],
)
def test_distinct_items_once_equal_the_plain_batch(data, negatives, task):
    """The item tower on every pair's item, loss by loops over pairs: same loss, same gradients."""
    model = make_dat(data.schema)
    batch = first_batch(data, negatives)
    loss = make_loss(data.schema, task)
    expected_total = plain_total(model, batch, loss, task)
    model.zero_grad()
    expected_total.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    output = loss(model(batch), batch)
    output.total.backward()
    torch.testing.assert_close(output.total, expected_total, rtol=1e-4, atol=1e-6)
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(
                parameter.grad, expected[name], rtol=1e-3, atol=1e-6, msg=name
            )


def plain_total(model, batch, loss, task):
    """Eq. 5 over a list of pairs with repeated items, written without the functions under test."""
    num = len(batch.positive)
    if batch.negative is not None:
        rows = torch.cat([batch.positive[:, None], batch.negative], 1)
    else:
        drawn = torch.repeat_interleave(torch.arange(len(batch.item_index)), batch.num_draws)
        rows = torch.cat([batch.positive[:, None], drawn.expand(num, -1)], 1)
    width = rows.shape[1]
    pairs = rows.flatten()
    item = model.encode_item(
        {name: value[pairs] for name, value in batch.item.items()}
    )  # every pair's item
    user = model.encode_user(batch.user)
    a_u = model.user_augmented(batch.user["user_id"])
    a_v = model.item_augmented(batch.item["item_id"][batch.positive])
    logits = (user[:, None] * item.view(num, width, -1)).sum(2) / task.temperature
    total = 0
    for i in range(num):
        kept = [0] + [j for j in range(1, width) if rows[i, j] != rows[i, 0]]
        row = logits[i, kept]
        if isinstance(task, BCE):
            total = total - torch.sigmoid(row[0]).log() - (1 - torch.sigmoid(row[1:])).log().sum()
        else:
            row = row - batch.log_q[rows[i, kept]] if task.correct_log_q else row
            total = total - row.softmax(0)[0].log()
    total = total / (num * width if isinstance(task, BCE) else num)
    p_v = item.view(num, width, -1)[:, 0]
    total = total + loss.lambda1 * ((a_u - p_v.detach()) ** 2).sum() / (num * width)
    total = total + loss.lambda2 * ((a_v - user.detach()) ** 2).sum() / (num * width)
    # alignment over the batch's items as often as they stand in it; a shared draw stands in it once
    if batch.negative is None:
        keep = torch.cat([torch.arange(num) * width, torch.arange(1, width)])
        item, pairs = item[keep], pairs[keep]
    category = batch.category[pairs]
    groups = {c: item[category == c] for c in category.unique().tolist()}
    groups = {c: torch.cov(x.T) for c, x in groups.items() if len(x) >= 2}
    sizes = {c: int((category == c).sum()) for c in groups}
    major = max(sizes, key=lambda c: (sizes[c], -c))
    return total + loss.lambda3 * sum(((groups[major] - c) ** 2).sum() for c in groups.values())
