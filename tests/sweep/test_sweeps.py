"""Every value in every sweep file composes, builds, and watches a metric that is logged."""

import itertools

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.conftest import ROOT
from twotower.run.build import build_part
from twotower.run.checks.checks import check_types
from twotower.run.derive import fill

SWEEPS = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "sweeps").glob("*.yaml"))
}


def values(spec):
    """All that an agent can be given for a parameter; of an interval its ends."""
    return (
        spec["values"]
        if "values" in spec
        else [spec["value"]]
        if "value" in spec
        else [spec["min"], spec["max"]]
    )


def settings(parameters):
    """Mappings of parameters with every value of each at least once, but of the seed."""
    first = {name: values(spec)[0] for name, spec in parameters.items()}
    yield first
    for name, spec in parameters.items():
        if name != "seed":
            yield from ({**first, name: value} for value in values(spec)[1:])


def test_the_sweeps_are_there():
    assert set(SWEEPS) == {
        "dat_lambdas_grid",
        "dat_lambdas_bayes",
        "dat_vs_baselines",
        "dat_architecture",
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_builds_its_model_and_loss(name, data):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for given in settings(SWEEPS[name]["parameters"]):
            assert_logged(SWEEPS[name], build(given, data))


@pytest.mark.slow
def test_every_baseline_builds_on_every_data_set(data):
    parameters = SWEEPS["dat_vs_baselines"]["parameters"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for model, chosen in itertools.product(
            values(parameters["model"]), values(parameters["data"])
        ):
            build({"model": model, "data": chosen, "logger": "wandb"}, data)


def build(given, data):
    """Compose what an agent is given, and build model and loss on a small world."""
    arguments = [
        f"{key}={value}" for key, value in given.items()
    ]  # as the agent writes ${args_no_hyphens}
    assert not any(
        override.is_sweep_override()
        for override in OverridesParser.create().parse_overrides(arguments)
    )
    config = compose("train", arguments)
    for root in ("data", "negatives", "optimizer", "logger"):
        check_types(root, OmegaConf.to_container(config[root], resolve=root != "logger"))
    fill(config, 67_817)
    build_part(config, "model", schema=data.schema)
    build_part(config, "loss", schema=data.schema)
    assert config.logger._target_ == "twotower.training.loggers.wandb_logger.RunWandbLogger"
    return config


def assert_logged(sweep, config):
    """The metric is logged in every validation, and chooses the checkpoint."""
    prefix, metric = sweep["metric"]["name"].split("/")
    labels = [
        label
        for node in config.metric
        for label in build_part(config, f"metric.{node}", num_groups=1).labels()
    ]
    assert prefix == "val" and metric in labels
    assert config.callbacks.best.monitor == sweep["metric"]["name"]
    assert (
        sweep["metric"]["goal"]
        == {"max": "maximize", "min": "minimize"}[config.callbacks.best.mode]
    )
    assert config.trainer.check_val_every_n_epoch == 1
    if "early_terminate" in sweep:
        assert sweep["early_terminate"]["type"] == "hyperband"
        assert sweep["early_terminate"]["min_iter"] < config.trainer.max_epochs


@pytest.mark.parametrize("name", SWEEPS)
def test_agents_can_run_it(name):
    sweep = SWEEPS[name]
    assert (ROOT / sweep["program"]).exists()
    assert sweep["command"] == ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
    assert sweep["method"] == "grid" or sweep["run_cap"] <= 100  # others never end by themselves
    assert not any(
        "parameters" in spec for spec in sweep["parameters"].values()
    )  # nested ones are no overrides
    assert (
        (sweep["method"] == "grid")
        == ("seed" in sweep["parameters"])
        == ("early_terminate" not in sweep)
    )


def test_the_comments_count_the_runs():
    for name, runs in {
        "dat_lambdas_grid": 36,
        "dat_vs_baselines": 54,
        "dat_architecture": 864,
    }.items():
        parameters = SWEEPS[name]["parameters"].values()
        product = 1
        for spec in parameters:
            product *= len(values(spec))
        assert product == runs and str(runs) in (ROOT / "sweeps" / f"{name}.yaml").read_text()
