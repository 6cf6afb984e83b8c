"""Which settings make a run another experiment: one table, which sweep, report and W&B follow."""

from functools import cache

import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.helpers.composition import compose_train
from twotower.run.settings import (
    Kind,
    changes_result,
    decided,
    fingerprint,
    flat,
    kind_of,
    leaves,
    makes_variant,
)
from twotower.run.wandb_names import flatten, variant
from twotower.sweep.plan import run_name

GROUPS = (
    *("model", "model/history", "loss", "loss/task", "negatives", "optimizer", "scheduler"),
    *("data", "data/split"),
)
CHOICES = {"model": "dat", "data": "synthetic"}


@cache
def every_leaf():
    """Value by dotted name, of all options together."""
    found = {}
    for group in (*GROUPS, "trainer", "callbacks", "logger", "debug", "variant"):
        for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
            if path.stem != "base":
                plain = OmegaConf.to_container(compose_train(f"{group}={path.stem}"), resolve=False)
                found |= dict(leaves("", plain))
    return found


def test_the_table_decides_every_leaf():
    """A new setting of the trainer, or a new callback, needs a line of its own."""
    undecided = [key for key in every_leaf() if decided(key) is None]
    assert not undecided, "add them to TABLE in run/settings.py"
    assert len(every_leaf()) > 150 and decided("trainer.new") is decided("callbacks.new") is None


def test_sweep_report_and_wandb_agree_on_every_leaf():
    """A sweep's fingerprint and folder, and W&B's group, change with the variant or the data."""
    config = compose_train("model=dat")
    plain = OmegaConf.to_container(config, resolve=False)
    marks, settings = fingerprint(config), flat(plain)
    for key, _ in leaves("", plain):
        other = config.copy()
        new = 3 if key in ("trainer.devices", "trainer.num_nodes") else "another"
        OmegaConf.update(other, key, new, merge=False, force_add=True)
        override = f"{key}={new}"
        kind = kind_of(key)
        is_variant = kind in (Kind.VARIANT, Kind.PROCESSES)
        assert (flat(OmegaConf.to_container(other, resolve=False)) != settings) == is_variant, key
        has_effect = kind is not Kind.MACHINE
        assert (fingerprint(other) != marks) == has_effect == changes_result(key), key
        assert (run_name([override]) != "default") == has_effect, key
        is_named = has_effect and kind is not Kind.SEED and not key.startswith("paths.")
        assert (variant(CHOICES, [override]) != "dat synthetic") == is_named, key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.accelerator", "cpu"),
        ("callbacks.diagnostics", None),
        ("trainer.log_every_n_steps", 1),
        ("data.eval_batch_size", 7),
        ("trainer.num_sanity_val_steps", 2),
        ("callbacks.last.every_n_steps", 10),
    ],
)
def test_the_same_experiment_is_one_variant_and_no_work_for_a_sweep(key, value):
    config = compose_train("model=dat")
    other = config.copy()
    OmegaConf.update(other, key, value, merge=False)
    assert fingerprint(other) == fingerprint(config)
    one, another = (flat(OmegaConf.to_container(c, resolve=False)) for c in (config, other))
    assert one == another
    assert run_name([f"{key}={value}"]) == "default"
    assert (
        run_name([f"{key}={value}"], varied=[key]) == f"{key}-{value}"
    )  # varied, it has a folder for each value


def test_a_fingerprint_counts_processes_and_ignores_null():
    config = compose_train("model=dat")
    two = [
        compose_train("model=dat", "trainer.devices=2"),
        compose_train("model=dat", "trainer.num_nodes=2"),
    ]
    assert fingerprint(two[0]) == fingerprint(two[1]) != fingerprint(config)
    assert fingerprint(
        compose_train("model=dat", "+trainer.gradient_clip_val=null")
    ) == fingerprint(config)
    assert fingerprint(compose_train("model=dat", "+trainer.gradient_clip_val=1")) != fingerprint(
        config
    )


def test_an_unknown_setting_makes_an_experiment():
    assert makes_variant("callbacks.mine.strength") and not makes_variant("callbacks.mine.dirpath")
    assert kind_of("scheduler.warmup_steps") is Kind.VARIANT and kind_of("trusted") is Kind.MACHINE
    assert kind_of("data.reader.url") is Kind.MACHINE and kind_of("model.curl") is Kind.VARIANT


def test_trusted_packages_are_not_logged():
    assert flatten(CHOICES, {"trusted": ["mylab."], "seed": 1}) == {**CHOICES, "seed": 1}
