"""A model measured: planted answers, swaps that always end, nothing touched."""

import math

import pytest
import torch

from tests.conftest import make_data
from tests.helpers.measured import LIMITS, sample_of
from tests.helpers.models import TWO_TOWER, make_dat
from twotower.data.splits import RandomRatio
from twotower.models.popularity import Popularity
from twotower.models.two_tower import TwoTower
from twotower.retrieval.corpus import Corpus
from twotower.retrieval.exact import target_ranks
from twotower.training.diagnostics.measure import measure
from twotower.training.diagnostics.probe import replaced, shuffled


def test_shuffle_gives_each_row_anothers_vector():
    vectors = torch.arange(10.0)[:, None]
    for seed in range(20):
        found = shuffled(vectors, torch.Generator().manual_seed(seed))
        assert (found != vectors).all() and sorted(found.flatten().tolist()) == list(range(10))


def test_replaced_vectors_are_handed_out_in_turn():
    table = torch.nn.Embedding(5, 1)
    with replaced(table, torch.tensor([[1.0], [2.0], [3.0]])):
        assert table(torch.tensor([4, 0])).tolist() == [[1.0], [2.0]]
        assert table(torch.tensor([0])).tolist() == [[3.0]]


def test_users_evaluated_one_by_one_are_shuffled_too(data):
    model = make_dat(data.schema).eval()
    together = sample_of(data, model)
    data.eval_batch_size = 1
    alone = sample_of(data, model)
    assert len(alone.users) == 60 > len(together.users)
    one, many = (measure(model, sample, LIMITS).values for sample in (alone, together))
    assert (
        one["mrr/a_u_shuffled"]
        == pytest.approx(many["mrr/a_u_shuffled"])
        != pytest.approx(one["mrr/intact"])
    )


def test_a_swap_ends_even_when_something_fails():
    table = torch.nn.Linear(2, 2)
    x, before = torch.ones(3, 2), table(torch.ones(3, 2))
    with replaced(table, torch.tensor([[5.0, 6.0]] * 3)):
        assert table(x).tolist() == [[5.0, 6.0]] * 3
    assert torch.equal(table(x), before)
    with pytest.raises(ZeroDivisionError), replaced(table, torch.zeros(3, 2)):
        1 / 0  # noqa: B018
    assert torch.equal(table(x), before)


def test_planted_answers(data):
    """``a_u`` equal for all users is useless; ``a_v`` equal to its target has R² 1."""
    model = make_dat(data.schema).eval()
    with torch.no_grad():
        model.user_augmented.weight[:] = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 3.0])
        model.item_augmented.weight[:] = 0
    values = measure(model, sample_of(data, model), LIMITS).values
    assert values["cosine/a_u"] == pytest.approx(1) and values[
        "effective_rank/a_u"
    ] == pytest.approx(1, abs=1e-4)
    assert (
        values["zero_share/a_u"] == 0
        and values["zero_share/a_v"] == 1
        and "cosine/a_v" not in values
    )  # NaN is left out
    assert values["mrr/a_u_shuffled"] == values["mrr/a_u_mean"] == values["mrr/intact"]
    # a_v = 0 against p_u of length 1
    assert values["mimic_error/train/a_v"] == pytest.approx(1, rel=1e-5)
    assert values["mimic_r2/held_out/a_u"] < -1


def test_mimic_error_of_the_train_pairs_is_the_loss(data):
    model = make_dat(data.schema).eval()
    sample = sample_of(data, model)
    batch = sample.train[0]
    towers = model(batch)
    a, p = towers.user_augmented, towers.item[batch.positive]
    error = (a - p).square().sum(1).mean().item()
    r2 = 1 - error / (p - p.mean(0)).square().sum(1).mean().item()
    values = measure(model, sample, LIMITS).values
    assert values["mimic_error/train/a_u"] == pytest.approx(error, rel=1e-5)
    assert values["mimic_r2/train/a_u"] == pytest.approx(r2, rel=1e-5)
    a, p = towers.item_augmented[batch.positive], towers.user
    assert values["mimic_error/train/a_v"] == pytest.approx(
        (a - p).square().sum(1).mean().item(), rel=1e-5
    )


def test_users_with_several_targets_against_plain_python(tmp_path):
    """Held-out mimic errors over all (user, target) pairs; metrics by a user's best target."""
    data = make_data(tmp_path, split=RandomRatio(0.3, 0.3, 0, 1))
    data.setup()
    model = make_dat(data.schema).eval()
    sample = sample_of(data, model)
    p_u = torch.cat([model.encode_user(batch.user) for batch in sample.users])
    a_u = torch.cat([model.user_augmented(batch.user["user_id"]) for batch in sample.users])
    a_v = model.item_augmented(
        torch.cat([chunk["item_id"] for chunk in data.corpus(torch.device("cpu"))])
    )
    targets = [
        [t for t in row if t >= 0] for batch in sample.users for row in batch.target.tolist()
    ]
    pairs = [(u, t) for u, row in enumerate(targets) for t in row]
    assert len({len(row) for row in targets}) > 1  # so there is padding
    ranks = [target_ranks_of(batch, model, sample) for batch in sample.users]
    best = [min(rank for rank in row if rank) for rows in ranks for row in rows.tolist()]
    values = measure(model, sample, LIMITS).values
    for name, errors in {
        "held_out/a_u": [(a_u[u] - sample.corpus.own[t]).square().sum().item() for u, t in pairs],
        "held_out/a_v": [(a_v[t] - p_u[u]).square().sum().item() for u, t in pairs],
    }.items():
        assert values[f"mimic_error/{name}"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert values["hit_rate@5/intact"] == pytest.approx(sum(rank <= 5 for rank in best) / len(best))
    assert values["mrr/intact"] == pytest.approx(sum(1 / rank for rank in best) / len(best))


def target_ranks_of(batch, model, sample):
    return target_ranks(
        model.encode_user(batch.user),
        sample.corpus.own,
        batch.target,
        batch.seen_row,
        batch.seen_item,
    )


def test_a_model_that_lives_on_a_u_fails_when_it_is_shuffled(data):
    """Towers that return ``a``; each ``a_u`` points at the first target, so ranking needs it."""
    model = make_dat(data.schema, hidden_dims=[], dim=40, normalize=False).eval()
    sample = sample_of(data, model)
    with torch.no_grad():
        for side in ("user", "item"):
            layer = getattr(model, f"{side}_tower").layers[0]
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[:, -40:] = torch.eye(40)
        model.item_augmented.weight[1:] = torch.eye(40)[: len(model.item_augmented.weight) - 1]
        model.user_augmented.weight.zero_()
        for batch in sample.users:
            model.user_augmented.weight[batch.user["user_id"]] = torch.eye(40)[batch.target[:, 0]]
    with torch.no_grad():
        chunks = data.corpus(torch.device("cpu"))
        corpus = Corpus.encoded(model, chunks, data.schema.num_items)
    values, tables = measure(model, sample._replace(corpus=corpus), LIMITS)
    swaps = tables["swaps"]
    for name, lost in swaps["lost"].items():  # everybody has a hit as trained
        assert swaps["gained"][name] == 0
        assert lost / swaps["num_users"] == pytest.approx(1 - values[f"hit_rate@5/{name}"])
    assert values["hit_rate@5/intact"] == 1 and values["mrr/intact"] == 1
    assert values["mimic_r2/held_out/a_u"] == pytest.approx(1)
    assert values["hit_rate@5/a_u_shuffled"] < 0.5 and values["hit_rate@5/a_v_shuffled"] < 0.5
    assert values["mrr/a_v_mean"] < 0.2  # all items alike, ties count against the target
    assert values["mrr/a_u_mean"] < 0.5


def test_nothing_is_touched(data):
    model = make_dat(data.schema).eval()
    sample = sample_of(data, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = measure(model, sample, LIMITS).values
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.user_augmented._forward_hooks and not model.item_augmented._forward_hooks
    assert measure(model, sample, LIMITS).values == first  # shuffles are the same every time


@pytest.mark.parametrize("kind", [TwoTower, Popularity])
def test_what_does_not_apply_is_left_out(data, kind):
    model = kind(data.schema, **TWO_TOWER) if kind is TwoTower else kind(data.schema)
    found = measure(model.eval(), sample_of(data, model, train=False), LIMITS)
    assert not any("a_u" in name or "a_v" in name or "mimic" in name for name in found.values)
    assert {"mrr/intact", "hit_rate@5/intact", "effective_rank/item"} <= found.values.keys()
    assert all(math.isfinite(value) for value in found.values.values())
    assert "model" not in found.tables
    no_categories = sample_of(data, model)._replace(category_names=[])
    assert measure(model, no_categories, LIMITS).tables.keys() == {"num_vectors"}


def test_a_model_may_speak_for_itself(data):
    class Speaking(TwoTower):
        def diagnose(self, user, item):
            assert len(user["user_id"]) > 0 and len(item["item_id"]) > 0
            return {"gate_entropy": torch.tensor(0.5), "kernel_load": torch.tensor([0.25, 0.75])}

    model = Speaking(data.schema, **TWO_TOWER).eval()
    found = measure(model, sample_of(data, model), LIMITS)
    assert found.values["gate_entropy"] == 0.5 and found.values["kernel_load/1"] == 0.75
    assert found.tables["model"] == {"kernel_load": [0.25, 0.75]}


def test_categories(data):
    model = make_dat(data.schema).eval()
    sample = sample_of(data, model)
    found = measure(model, sample, LIMITS)
    table = found.tables["hit_rate"]
    assert (
        sum(table["targets"]) == sum(len(batch.target) for batch in sample.users)
        and table["k"] == 5
    )
    overall = sum(table["hits"]) / sum(table["targets"])
    assert overall == pytest.approx(found.values["hit_rate@5/intact"])
    covariance = found.tables["covariance"]
    assert (
        covariance["items"] == sorted(covariance["items"], reverse=True)
        and sum(covariance["items"]) == 40
    )
    assert found.values["covariance_distance/to_largest"] == pytest.approx(
        sum(covariance["distance"][0]) / 2
    )
    covariances = [torch.cov(sample.corpus.own[sample.category == index].T) for index in range(3)]
    largest = max(range(3), key=lambda index: (sample.category == index).sum().item())
    relative = found.values["covariance_distance/to_largest"] / covariances[largest].norm().item()
    assert found.values["covariance_distance/relative"] == pytest.approx(relative, rel=1e-4)


def test_a_category_with_one_item_has_no_covariance(data):
    model = make_dat(data.schema).eval()
    sample = sample_of(data, model)
    category = sample.category.clone()
    category[category == 2] = -1
    category[0] = 2
    found = measure(model, sample._replace(category=category), LIMITS)
    assert len(found.tables["covariance"]["names"]) == 2 and all(
        math.isfinite(value) for value in found.values.values()
    )
