"""The control experiments: what they hold equal to DAT, on the default data and on others."""

import pytest
import torch

from tests.conftest import make_data
from tests.helpers.composition import compose_derived, compose_train
from tests.helpers.models import first_batch
from twotower.data.readers.synthetic import Synthetic
from twotower.data.sampling import SharedUniform
from twotower.run.build import build_part


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
