"""Wrong values for every setting: each is refused in one line that names it, or the run ends as it should."""

import math
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from twotower.checks import CONF, check_config
from twotower.types import UserError

GROUPS = ("data", "data/split", "negatives", "model", "loss", "loss/task", "optimizer", "logger")
OPTIONS = [
    f"{group}={path.stem}"
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if path.stem != "base" and (path.stem, group) != ("none", "logger")
]
ADDED = {  # arguments of Lightning and torch that the YAML files do not list
    "trainer": [
        *("fast_dev_run", "min_epochs", "min_steps", "max_time", "limit_train_batches", "limit_val_batches"),
        *("limit_test_batches", "limit_predict_batches", "val_check_interval", "accumulate_grad_batches"),
        *("gradient_clip_val", "gradient_clip_algorithm", "benchmark", "inference_mode", "profiler", "detect_anomaly"),
        *("plugins", "sync_batchnorm", "reload_dataloaders_every_n_epochs", "default_root_dir", "overfit_batches"),
        *("barebones", "logger", "callbacks", "enable_checkpointing", "enable_autolog_hparams", "model_registry"),
    ],
    "callbacks.best": [
        *("verbose", "save_last", "save_on_exception", "save_weights_only", "auto_insert_metric_name"),
        *("every_n_train_steps", "train_time_interval", "every_n_epochs", "save_on_train_epoch_end"),
    ],
    "callbacks.early_stopping": [
        *("min_delta", "verbose", "strict", "check_finite", "stopping_threshold", "divergence_threshold"),
        "log_rank_zero_only",
    ],
    "callbacks.progress": ["leave", "theme", "console_kwargs"],
    "optimizer": ["betas", "eps", "amsgrad", "foreach", "maximize", "capturable", "differentiable"],
}
VALUES = ["abc", "''", "null", "true", "-1", "0", "1", "1.5", "1e-30", "nan", "inf", "1e308", "[]", "{}", "[0]", "{a:1}"]
SMALL = (
    "data.reader.num_users=60",
    "data.reader.num_items=40",
    "data.reader.num_clusters=6",
    "data.reader.num_categories=3",
    "data.reader.interactions_per_user=8",
    "data.k_core=0",
    "data.batch_size=64",
    "negatives.num=20",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
)


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", list(overrides))
    OmegaConf.set_struct(config, False)
    return config


def leaves(node, path=""):
    """Dotted name and value of each setting that is no node."""
    for key, value in node.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            yield from leaves(value, name)
        else:
            yield name, value


def wrong_values(value):
    """Of another kind than the value that stands there; of a null nobody knows its kind."""
    if isinstance(value, bool):
        return ["abc", 5, -1.5, math.nan, {}, []]
    if isinstance(value, (int, float)):
        return ["abc", math.nan, -math.inf, 1e308, True, {}, [[]]]
    if isinstance(value, list):
        return ["abc", 5, True, math.nan, {"a": 1}]
    if isinstance(value, str):
        return [5, True, math.nan, {}, [[]]]
    return [math.nan, -math.inf]


def refused(config, name, value):
    changed = config.copy()
    OmegaConf.update(changed, name, value, merge=False)
    try:
        check_config(changed)
    except UserError as error:
        assert name in str(error), f"{name}={value!r}: {error}"
        return True
    return False


@pytest.mark.parametrize("option", OPTIONS)
def test_a_value_of_the_wrong_kind_is_refused_by_name(option):
    config = composed(option)
    everything = dict(leaves(OmegaConf.to_container(config)))
    if option != "data=synthetic":  # whose settings are all of those that the others have not changed
        root = option.split("=")[0].replace("/", ".")
        everything = {name: value for name, value in everything.items() if name.startswith(f"{root}.")}
    known = {"data.reader.generation"}  # a number or a text
    accepted = [
        f"{name}={value!r}"
        for name, stands in everything.items()
        if "${" not in str(stands) and name not in known
        for value in wrong_values(stands)
        if not refused(config, name, value)
    ]
    assert not accepted
