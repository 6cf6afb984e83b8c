"""Every value in every sweep file composes, builds its loss, and watches a metric that is logged."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.conftest import ROOT
from twotower.cli import check_types
from twotower.run import build_part

SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
assert SWEEPS


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep(path):
    sweep = yaml.safe_load(path.read_text())
    assert (ROOT / sweep["program"]).exists() and sweep["command"][-1] == "${args_no_hyphens}"
    fixed = {name: spec["value"] for name, spec in sweep["parameters"].items() if "value" in spec}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for name, spec in sweep["parameters"].items():
            for value in spec.get("values", [spec.get("value"), spec.get("min"), spec.get("max")]):
                if value is None:
                    continue
                assert "," not in str(value) and "=" not in str(value)
                overrides = {**fixed, name: value}
                config = compose("train", [f"{key}={item}" for key, item in overrides.items()], return_hydra_config=False)
                check_types("loss", OmegaConf.to_container(config.loss, resolve=True))
                assert config.callbacks.best.monitor == sweep["metric"]["name"]
                prefix, metric = sweep["metric"]["name"].split("/")
                labels = [
                    label for node in config.metric for label in build_part(config, f"metric.{node}", num_groups=1).labels()
                ]
                assert prefix == "val" and metric in labels
