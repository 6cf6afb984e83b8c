"""Augmented vectors as running means: against NumPy, at no cost of the whole table, in new ids."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import in_two_processes
from tests.helpers.models import first_batch, make_dat
from twotower.data.sampling import Uniform
from twotower.errors import UserError
from twotower.layers.running_mean import RunningMeanTable

STEPS = (([3, 1, 3], [[2.0, 0], [4, 8], [6, 2]]), ([3, 2], [[0, 0], [1, 1]]), ([3], [[10, 10]]))


def test_rows_by_hand():
    """Momentum .6: shares 1, 1/2, .4. Row 3: mean (4, 1); half way to 0: (2, .5); .4 on to 10."""
    table = RunningMeanTable(5, 2, "mean", 0.6).double()
    for index, vector in STEPS:
        table.update(torch.tensor(index), torch.tensor(vector, dtype=torch.float64))
    expected = [[0, 0], [4, 8], [1, 1], [5.2, 4.3], [0, 0]]
    np.testing.assert_allclose(table.weight.numpy(), expected, rtol=1e-7)
    assert table.updates.tolist() == [0, 1, 1, 3, 0] and list(table.parameters()) == []


def plain_update(weight, updates, index, vector, momentum):
    """One step in NumPy, id by id."""
    for one in np.unique(index):
        share = max(1 / (updates[one] + 1), 1 - momentum)
        weight[one] += share * (vector[index == one].mean(0) - weight[one])
        updates[one] += 1


def test_a_u_is_the_mean_of_the_users_positive_p_v_before_the_step(data):
    model = make_dat(data.schema, augment_gradient="none", augment_momentum=0.7).double().train()
    names = {"user": "user_id", "item": "item_id"}
    tables = {side: getattr(model, f"{side}_augmented") for side in names}
    weight = {side: table.weight.numpy().copy() for side, table in tables.items()}
    updates = {side: table.updates.numpy().copy() for side, table in tables.items()}
    data.negatives = Uniform(3, False)
    for index in [*data.train_dataloader()][:6]:
        batch = data.train_batch(index)
        ids = {
            "user": batch.user["user_id"].numpy(),
            "item": batch.item["item_id"][batch.positive].numpy(),
        }
        with torch.no_grad():  # what the towers are given: the rows as they are before the step
            user, item = model.eval().encode_user(batch.user), model.encode_item(batch.item)
        towers = model.train()(batch)
        torch.testing.assert_close(towers.user, user)
        torch.testing.assert_close(towers.item, item)
        assert towers.user_augmented is None and towers.item_augmented is None
        targets = {"user": item[batch.positive].numpy(), "item": user.numpy()}
        for side, own in ids.items():
            plain_update(weight[side], updates[side], own, targets[side], 0.7)
            np.testing.assert_allclose(tables[side].weight, weight[side], rtol=1e-6, atol=1e-12)
    assert (updates["user"] > 1).any() and (updates["item"] > 1).any()
    before = tables["user"].weight.clone()
    model.eval()(batch)
    assert torch.equal(tables["user"].weight, before)  # an evaluation does not average


def test_no_gradient_reaches_what_is_averaged(data):
    model = make_dat(data.schema, augment_gradient="none").train()
    batch = first_batch(data, Uniform(3, False))
    model(batch)
    towers = model(batch)
    towers.user.sum().backward()
    assert not any("augmented" in name for name, _ in model.named_parameters())
    assert all(p.grad is None for name, p in model.named_parameters() if name.startswith("item"))


class Largest(TorchDispatchMode):
    """The largest tensor that operations make, other than changes in place."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not func._schema.is_mutable:
            self.number = max(self.number, made.numel())
        return made


def test_a_step_does_not_depend_on_the_size_of_the_table():
    table = RunningMeanTable(10_000, 2, "mean", 0.9).train()
    with Largest() as largest:
        table.update(torch.tensor([1, 9_999, 1]), torch.ones(3, 2))
        table(torch.tensor([1, 9_999, 1]))
    assert 0 < largest.number <= 10


@pytest.mark.parametrize("cold_ids", ["mean", "zero", "trained"])
def test_a_new_id_gets_what_cold_ids_says(cold_ids):
    table = RunningMeanTable(3, 2, cold_ids, 0.9)
    table.update(torch.tensor([1, 2]), torch.tensor([[2.0, 0], [4, 8]]))
    if cold_ids == "trained":  # hidden ids are averaged in row 0
        table.update(torch.tensor([0, 0]), torch.tensor([[1.0, 1], [3, 3]]))
    expected = {"mean": [3.0, 4.0], "zero": [0.0, 0.0], "trained": [2.0, 2.0]}[cold_ids]
    new = torch.tensor([0])
    assert table.eval()(new)[0].tolist() == expected
    table.fix_cold_row()  # for an export
    assert table(new)[0].tolist() == table.weight[0].tolist() == expected


def test_a_checkpoint_keeps_the_means(data):
    one, other = (make_dat(data.schema, augment_gradient="none") for _ in range(2))
    batch = first_batch(data, Uniform(3, False))
    one.train()(batch)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other.train()(batch), one.train()(batch))
    assert torch.equal(other.user_augmented.updates, one.user_augmented.updates)


def test_what_makes_no_sense_is_refused(data):
    with pytest.raises(UserError, match="set model.sharding=none"):
        make_dat(data.schema, augment_gradient="none", sharding="row")
    with pytest.raises(UserError, match="model.augment_momentum"):
        make_dat(data.schema, augment_gradient="none", augment_momentum=1)


def rows_of_both(rank):
    table = RunningMeanTable(5, 2, "mean", 0.6)
    for index, vector in STEPS[:2]:
        own = slice(0, 1) if rank == 0 else slice(1, None)
        table.update(torch.tensor(index[own]), torch.tensor(vector[own]))
    return table.weight.tolist(), table.updates.tolist()


def test_two_processes_average_as_one(tmp_path):
    whole = RunningMeanTable(5, 2, "mean", 0.6)
    for index, vector in STEPS[:2]:
        whole.update(torch.tensor(index), torch.tensor(vector))
    for weight, updates in in_two_processes(rows_of_both, tmp_path / "rendezvous"):
        torch.testing.assert_close(torch.tensor(weight), whole.weight)
        assert updates == whole.updates.tolist()
