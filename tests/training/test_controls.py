"""The control experiments: what they hold equal to DAT, on the default data and on others."""

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import make_data
from tests.helpers.composition import compose_derived, compose_train
from tests.helpers.models import first_batch
from twotower.data.readers.synthetic import Synthetic
from twotower.data.sampling import SharedUniform
from twotower.run.build import build_part
from twotower.run.settings import leaves


def num_parameters(config, schema):
    return sum(
        parameter.numel() for parameter in build_part(config, "model", schema=schema).parameters()
    )


@pytest.fixture(scope="module")
def default_data(tmp_path_factory):
    reader = {key: value for key, value in compose_train().data.reader.items() if key != "_target_"}
    module = make_data(
        tmp_path_factory.mktemp("data"), Synthetic(**reader), k_core=5, history_length=10
    )
    module.setup()
    return module


def test_parameters_match_on_the_default_data(default_data):
    counts = {
        name: num_parameters(compose_derived(*overrides), default_data.schema)
        for name, overrides in {
            "dat": ("model=dat",),
            "lambda0": ("variant=dat_lambda0",),
            "wide": ("variant=two_tower_wide",),
            "two_tower": ("model=two_tower",),
        }.items()
    }
    assert counts["dat"] == counts["lambda0"] == counts["wide"]
    assert (
        counts["two_tower"] < 0.75 * counts["dat"]
    )  # the tables dominate: without a control, DAT is a larger model


def test_parameters_match_on_other_data_and_presets(default_data):
    """Few users, many items, other widths: the match is no accident of the default sizes."""
    schema = default_data.schema
    features = [
        tuple(f._replace(num_values=f.num_values * (1 if f.name == "user_id" else 7)) for f in side)
        for side in schema[:2]
    ]
    other = schema._replace(user=features[0], item=features[1])
    dat = num_parameters(
        compose_derived("experiment=dat_movielens_1m", "variant=dat_lambda0"), other
    )
    assert dat == num_parameters(
        compose_derived("experiment=two_tower_movielens_1m", "variant=two_tower_wide"), other
    )


def test_controls_leave_optimizer_data_and_task_alone():
    dat = compose_train("model=dat")
    for name in ("dat_lambda0", "two_tower_wide", "two_tower_cal"):
        control = compose_train(f"variant={name}")
        for key in ("data", "negatives", "optimizer", "trainer", "metric", "callbacks", "seed"):
            assert control[key] == dat[key], (name, key)
        assert control.loss.task == dat.loss.task
    assert compose_train("variant=dat_lambda0", "data=movielens_1m").data.reader.variant == "1m"


CONTROLS = {  # what each changes in DAT, on both bases
    "lambda0": {"loss.lambda1": 0, "loss.lambda2": 0, "loss.lambda3": 0},
    "lambda1": {"loss.lambda2": 0, "loss.lambda3": 0},
    "lambda2": {"loss.lambda1": 0, "loss.lambda3": 0},
    "cal": {"loss.lambda1": 0, "loss.lambda2": 0},
    "amm": {"loss.lambda3": 0},
    "shuffled": {"loss.mimic_target": "shuffled"},
    "mean": {"loss.mimic_target": "mean"},
    "mimic": {"model.augment_gradient": "mimic"},
    "running_mean": {"model.augment_gradient": "none", "loss.lambda1": 0, "loss.lambda2": 0},
}


@pytest.mark.parametrize("base", ["dat", "sasrec_dat"])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_changes_its_part_of_dat_and_nothing_else(base, name):
    variant = "sasrec_dat_lambda3" if (base, name) == ("sasrec_dat", "cal") else f"{base}_{name}"
    plain, control = (
        dict(leaves("", OmegaConf.to_container(compose_train(f"variant={one}"), resolve=False)))
        for one in (base, variant)
    )
    changed = {key: value for key, value in control.items() if value != plain[key]}
    assert changed == CONTROLS[name] and plain.keys() == control.keys()


@pytest.mark.parametrize("name", ["dat_shuffled", "dat_mean", "dat_mimic", "dat_running_mean"])
def test_controls_train_and_are_served_without_positives(data, name):
    """What their tables hold after a step is all that a later user's vector needs."""
    config = compose_derived(
        f"variant={name}", f"data.history_length={data.options.history_length}"
    )
    batch = first_batch(data, SharedUniform(50, False))
    model, loss = (build_part(config, part, schema=data.schema) for part in ("model", "loss"))
    model.train()(batch)
    loss(model(batch), batch).total.backward()
    assert model.user_tower.layers[0].weight.grad.abs().sum() > 0
    saved = build_part(config, "model", schema=data.schema)
    saved.load_state_dict(model.state_dict())
    new = {name: value.clone() for name, value in batch.user.items()}
    new["user_id"][0] = 0  # unknown to the tables
    torch.testing.assert_close(saved.eval().encode_user(new), model.eval().encode_user(new))
    assert torch.isfinite(saved.encode_user(new)).all()


def test_lambda0_is_dat_whose_vectors_only_the_task_trains(data):
    config = compose_derived("variant=dat_lambda0")
    batch = first_batch(data, SharedUniform(50, False))
    model, loss = (build_part(config, part, schema=data.schema) for part in ("model", "loss"))
    output = loss(model(batch), batch)
    output.total.backward()
    assert set(output.terms) == {"task"}
    assert model.user_augmented.weight.grad.abs().sum() > 0  # still inputs of their towers


def test_wide_equals_lambda0_with_the_same_values(data):
    """An id table next to one of augmented vectors is one table as wide as both."""
    narrow = build_part(compose_derived("variant=dat_lambda0"), "model", schema=data.schema)
    wide = build_part(compose_derived("variant=two_tower_wide"), "model", schema=data.schema)
    for side in ("user", "item"):
        rows, columns, place = [], [], 0
        old, new = getattr(narrow, f"{side}_embedding"), getattr(wide, f"{side}_embedding")
        augmented = getattr(narrow, f"{side}_augmented").weight
        first, last = (
            getattr(narrow, f"{side}_tower").layers[0].weight.split([old.output_dim, 32], 1)
        )
        for name, before, after in zip(old.names, old.embeddings, new.embeddings, strict=True):
            columns.append(first[:, place : place + 32])
            place += 32
            if name == f"{side}_id":
                after.weight.data = torch.cat([before.weight, augmented], 1).data
                columns.append(last)
            else:
                after.load_state_dict(before.state_dict())
            rows.append(name)
        tower = getattr(wide, f"{side}_tower")
        tower.load_state_dict(
            {
                **getattr(narrow, f"{side}_tower").state_dict(),
                "layers.0.weight": torch.cat(columns, 1),
            }
        )
    batch = first_batch(data, SharedUniform(50, False))
    for one, other in zip(narrow(batch)[:2], wide(batch)[:2], strict=True):
        torch.testing.assert_close(one, other)


def test_two_tower_cal_has_alignment_alone(data):
    config = compose_derived("variant=two_tower_cal")
    batch = first_batch(data, SharedUniform(50, False))
    model, loss = (build_part(config, part, schema=data.schema) for part in ("model", "loss"))
    assert (
        set(loss(model(batch), batch).terms) == {"task", "alignment"}
        and config.loss.lambda3 == compose_train().loss.lambda3
    )


def test_the_schema_counts_training_interactions_by_category(data):
    item = data.train_interactions().item - 1
    expected = torch.bincount(
        data.tables["category"][item].long(), minlength=data.schema.num_categories
    )
    assert list(data.schema.category_counts) == expected.tolist() and sum(expected) == len(item)
