"""Placebos of the mimic losses: against NumPy in float64, and without the paper's target."""

import numpy as np
import pytest
import torch

from tests.conftest import in_two_processes, make_data
from tests.helpers.losses import NoTask, gradients, paper_alignment
from tests.helpers.models import first_batch, make_dat
from twotower.data.sampling import Uniform
from twotower.errors import UserError
from twotower.losses.dat import DATLoss
from twotower.losses.mimic_target import mean_of_batch, of_another


def make_loss(schema, target, lambda1=0.5, lambda2=0.25):
    parts = (NoTask(), lambda1, lambda2, 0, "positives", "sum", paper_alignment, target)
    return DATLoss(schema, *parts)


def test_two_owners_with_half_of_the_rows_take_each_others_targets_in_order():
    """Rows of 7: 1, 2, 3; of 9: 10, 20, 30. Whichever comes first, 1 <-> 10, 2 <-> 20, 3 <-> 30."""
    own = torch.tensor([[1.0], [10], [20], [2], [30], [3]])
    owner = torch.tensor([7, 9, 9, 7, 9, 7])
    for salt in range(20):
        target, is_other = of_another(own, owner, torch.tensor(salt))
        assert target[:, 0].tolist() == [10, 1, 2, 20, 3, 30] and is_other.all()


def test_every_target_is_taken_once_by_another_owner():
    owner = torch.tensor([3, 5, 5, 5, 8, 8, 1, 1, 1, 1, 4])  # none has more than half of 11
    own = torch.arange(11.0)[:, None]
    seen = set()
    for salt in range(50):
        target, is_other = of_another(own, owner, torch.tensor(salt))
        taken = target[:, 0].long()
        assert sorted(taken.tolist()) == list(range(11))
        assert is_other.all() and (owner[taken] != owner).all()
        seen.add(tuple(taken.tolist()))
    assert len(seen) > 15  # of 24 orders of five owners on a circle


def test_partners_are_as_good_as_random():
    """Of 40 owners in 2,000 steps each meets each other about 2000 / 39 = 51 times."""
    owner = torch.arange(40)
    met = np.zeros((40, 40))
    for salt in range(2000):
        target, _ = of_another(owner[:, None], owner, torch.tensor(17 * salt))
        met[owner, target[:, 0]] += 1
    others = met[~np.eye(40, dtype=bool)]
    assert (np.diag(met) == 0).all() and others.min() > 15 and others.max() < 100


@pytest.mark.parametrize("positives", ["interactions", "sequences"])
def test_shuffled_losses_are_those_of_other_users_and_items(tmp_path, positives):
    """Each target is found by its value among those of the batch; errors are summed in NumPy."""
    data = make_data(tmp_path, positives=positives, batch_size=48, history_length=30)
    data.setup()
    batch = first_batch(data, Uniform(3, False))
    towers = make_dat(data.schema).double()(batch)
    loss = make_loss(data.schema, "shuffled")
    captured = []
    loss._target = lambda *parts: captured.append(DATLoss._target(loss, *parts)) or captured[-1]
    terms = loss(towers, batch).terms
    user = batch.user["user_id"].numpy()
    p_u, p_v = (rows.detach().numpy() for rows in (towers.user, towers.item[batch.positive]))
    a_u = towers.user_augmented.detach().numpy()
    a_v = towers.item_augmented[batch.positive].detach().numpy()
    sides = (("mimic_user", a_u, p_v, user), ("mimic_item", a_v, p_u, batch.positive.numpy()))
    for (name, augmented, own, owner), target in zip(sides, captured, strict=True):
        target = target.detach().numpy()
        same = (target[:, None] == own).all(2)  # (batch, batch), which targets they may be
        assert same.any(1).all()
        assert (same & (owner[:, None] != owner)).any(1).all()  # of another user, another item
        expected = ((augmented - target) ** 2).sum() / len(own)
        assert terms[name].item() == pytest.approx(expected, rel=1e-12)
        assert terms[name].item() != pytest.approx(((augmented - own) ** 2).sum() / len(own))


def test_mean_losses_are_those_of_the_mean_vector(data):
    batch = first_batch(data, Uniform(3, False))
    towers = make_dat(data.schema).double()(batch)
    terms = make_loss(data.schema, "mean")(towers, batch).terms
    p_u, p_v = (rows.detach().numpy() for rows in (towers.user, towers.item[batch.positive]))
    a_u = towers.user_augmented.detach().numpy()
    a_v = towers.item_augmented[batch.positive].detach().numpy()
    user = ((a_u - p_v.sum(0) / len(p_v)) ** 2).sum(1).mean()
    item = ((a_v - p_u.sum(0) / len(p_u)) ** 2).sum(1).mean()
    assert terms["mimic_user"].item() == pytest.approx(user, rel=1e-6)
    assert terms["mimic_item"].item() == pytest.approx(item, rel=1e-6)


@pytest.mark.parametrize("target", ["shuffled", "mean"])
@pytest.mark.parametrize("side", ["user", "item"])
def test_a_placebo_trains_augmented_vectors_alone(data, target, side):
    model = make_dat(data.schema, augment_gradient="mimic")
    batch = first_batch(data, Uniform(3, False))
    weights = (0.7, 0) if side == "user" else (0, 0.7)
    found = gradients(model, make_loss(data.schema, target, *weights), batch)
    assert {name for name, size in found.items() if size > 0} == {f"{side}_augmented.weight"}


def test_a_batch_of_one_user_has_no_other_target(data):
    batch = first_batch(data, Uniform(3, False))
    alone = batch._replace(user={**batch.user, "user_id": torch.full_like(batch.positive, 4)})
    terms = make_loss(data.schema, "shuffled")(make_dat(data.schema)(alone), alone).terms
    assert terms["mimic_user"] == 0 and terms["mimic_item"] > 0


def test_a_placebo_without_mimic_losses_is_refused(data):
    with pytest.raises(UserError, match=r"loss.mimic_target=mean.*set loss.lambda1"):
        make_loss(data.schema, "mean", 0, 0)
    with pytest.raises(UserError, match="loss.mimic_target must be one of"):
        make_loss(data.schema, "random")


def mean_of_unequal_shares(rank):
    rows = torch.tensor([[1.0, 0], [2, 0], [3, 6]])
    return mean_of_batch(rows[:1] if rank == 0 else rows[1:]).tolist()


def test_two_processes_have_one_mean(tmp_path):
    assert in_two_processes(mean_of_unequal_shares, tmp_path / "rendezvous") == [
        [[2.0, 2.0]],
        [[2.0, 2.0], [2.0, 2.0]],
    ]
