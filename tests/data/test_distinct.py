"""Batches of fixed shape: padding changes no loss and no gradient."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses import fake_tensor

from tests.conftest import make_data
from tests.helpers.composition import compose_derived
from twotower.data.batches.distinct import distinct_items
from twotower.data.readers.synthetic import Synthetic
from twotower.run.build import build_part

OWN = ("loss/task=bce", "negatives.num=1")
DAT = ("model=dat", "loss.lambda1=0.5", "loss.lambda2=0.5", "loss.lambda3=1", *OWN)
SHARED = ("model=dat", "loss.lambda3=1", "loss/task=sampled_softmax", "negatives.num=12")


def test_distinct_items_by_hand():
    item = torch.tensor([7, 3, 7, 1])
    distinct, row = distinct_items(item, 6, padding=99)
    assert distinct.tolist() == [1, 3, 7, 99, 99, 99] and row.tolist() == [2, 1, 2, 0]
    distinct, row = distinct_items(item, None, padding=99)
    assert distinct.tolist() == [1, 3, 7] and row.tolist() == [2, 1, 2, 0]


@pytest.mark.parametrize("num", [1, 2, 500])
def test_fixed_and_variable_shapes_agree(num):
    item = torch.randint(0, 60, (num,), generator=torch.Generator().manual_seed(num))
    exact, exact_row = distinct_items(item, None, padding=60)
    padded, row = distinct_items(item, min(num, 60), padding=60)
    assert (
        torch.equal(padded[: len(exact)], exact)
        and torch.equal(row, exact_row)
        and (padded[len(exact) :] == 60).all()
    )


def test_fixed_shapes_do_not_wait_for_the_device():
    """Tensors without data have shapes alone: what must look at data fails."""
    with fake_tensor.FakeTensorMode():
        item = torch.zeros(9, dtype=torch.long)
        distinct, row = distinct_items(item, 5, padding=60)
        assert distinct.shape == (5,) and row.shape == (9,)
        with pytest.raises(fake_tensor.DynamicOutputShapeException):
            distinct_items(item, None, padding=60)


@pytest.fixture
def parts(tmp_path):
    """Data, model and loss of a composed config, in float64."""

    def make(*overrides):
        config = compose_derived(*overrides)
        data = make_data(tmp_path, Synthetic(60, 50, 3, 6, 8, seed=1))
        data.negatives = build_part(config, "negatives")
        data.setup()
        torch.manual_seed(0)
        model, loss = (
            build_part(config, name, schema=data.schema).double() for name in ("model", "loss")
        )
        return data, model, loss

    return make


def batches(data, fixed_shapes, num=4):
    data.fixed_shapes = fixed_shapes
    indices = [index for index, _ in zip(data.train_dataloader(), range(num), strict=False)]
    return [in_double(data.train_batch(index)) for index in indices]


def in_double(batch):
    user, item = (
        {name: x.double() if x.is_floating_point() else x for name, x in side.items()}
        for side in (batch.user, batch.item)
    )
    return batch._replace(user=user, item=item)


@pytest.mark.parametrize(
    "overrides",
    [
        DAT,
        (
            *DAT,
            "loss.alignment.count=items",
            "loss.alignment.weighting=sqrt_n",
            "loss.alignment.over_categories=mean",
        ),
        (
            *DAT,
            "loss.alignment.major=global",
            "loss.alignment.momentum=0.9",
            "loss.alignment.min_items=1",
        ),
        ("model=dat", "loss/task=bpr", "negatives.num=2"),
        SHARED,
        (*SHARED, "negatives=popularity", "loss.task.correct_log_q=true"),
        ("model=dat", "loss.lambda3=1", "loss/task=full_softmax"),
        (*SHARED, "loss.task.chunk=3"),
        (
            "model=dat",
            "loss.lambda3=1",
            "loss/task=in_batch_softmax",
            "negatives.exclude_positives=true",
        ),
        (
            "model=two_tower",
            "loss/task=in_batch_softmax",
            "negatives=mixed",
            "negatives.second.num=5",
        ),
        ("model=youtube_dnn", *OWN),
        ("model=mind", *OWN),
        ("model=mvke", *OWN),
        ("model=fm", *OWN),
        ("model=mf", *OWN),
    ],
    ids=" ".join,
)
def test_padding_changes_no_loss_and_no_gradient(parts, overrides):
    found = {}
    for fixed_shapes in (False, True):
        data, model, loss = parts(*overrides)
        assert data.fixed_shapes is False
        steps = batches(data, fixed_shapes)
        totals = []
        for batch in steps:
            total = loss(model(batch), batch).total
            total.backward()
            totals.append(total.item())
        gradient = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found[fixed_shapes] = totals, gradient, {len(batch.item_index) for batch in steps}
    (exact, exact_gradient, sizes), (padded, padded_gradient, one_size) = found[False], found[True]
    assert padded == pytest.approx(exact, rel=1e-12)
    assert padded_gradient.keys() == exact_gradient.keys()
    for name, gradient in exact_gradient.items():
        torch.testing.assert_close(
            padded_gradient[name], gradient, rtol=1e-10, atol=1e-12, msg=name
        )
    room = one_size.pop()
    assert not one_size and (
        len(sizes) > 1 and max(sizes) < room or "loss/task=full_softmax" in overrides
    )


@pytest.mark.parametrize("fixed_shapes", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_one_compilation_for_all_batches(parts, fixed_shapes):
    """The whole step compiles to one graph; other shapes would compile it again."""
    data, model, loss = parts(*DAT)
    steps = batches(data, fixed_shapes)
    torch._dynamo.reset()
    counter = CompileCounter()
    step = torch.compile(
        lambda batch: loss(model(batch), batch).total,
        backend=counter,
        fullgraph=True,
        dynamic=False,
    )
    for batch in steps:
        step(batch)
    shapes = {len(batch.item_index) for batch in steps}
    assert counter.frame_count == len(shapes) and (len(shapes) == 1) == fixed_shapes
