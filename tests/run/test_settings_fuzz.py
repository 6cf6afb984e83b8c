"""Wrong values for every setting: a line that names the setting, or a run with finite metrics."""

import copy
import math
import os
import random
import shutil
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from twotower.errors import UserError
from twotower.run.checks.checks import check_config, check_types
from twotower.run.conf import CONF, options

GROUPS = ("data", "data/split", "negatives", "model", "loss", "loss/task", "optimizer", "logger")
OPTIONS = [
    f"{group}={option}"
    for group in GROUPS
    for option in options(group)
    if (option, group) != ("none", "logger")
]
ADDED = {  # arguments of Lightning and torch that the YAML files do not list
    "trainer": (
        "fast_dev_run min_epochs min_steps max_time limit_train_batches limit_val_batches "
        "limit_test_batches limit_predict_batches val_check_interval "
        "accumulate_grad_batches gradient_clip_val gradient_clip_algorithm benchmark "
        "inference_mode profiler detect_anomaly plugins sync_batchnorm "
        "reload_dataloaders_every_n_epochs default_root_dir overfit_batches barebones "
        "logger callbacks enable_checkpointing enable_autolog_hparams model_registry"
    ),
    "callbacks.best": (
        "verbose save_last save_on_exception save_weights_only auto_insert_metric_name "
        "every_n_train_steps train_time_interval every_n_epochs save_on_train_epoch_end"
    ),
    "callbacks.early_stopping": (
        "min_delta verbose strict check_finite stopping_threshold divergence_threshold "
        "log_rank_zero_only"
    ),
    "callbacks.progress": "leave theme console_kwargs",
    "optimizer": "betas eps amsgrad foreach maximize capturable differentiable",
}
NUMBER_OR_TEXT = {
    "callbacks.speed.record",
    "data.split.val_from",
    "data.split.test_from",
    "logger.version",
    "data.reader.generation",
}
VALUES = (
    *("abc", "''", "null", "true", "-1", "0", "1", "1.5", "1e-30", "nan", "inf", "1e308"),
    *("[]", "{}", "[0]", "{a:1}"),
)
SMALL = (
    "data.reader.num_users=60",
    "data.reader.num_items=40",
    "data.reader.num_clusters=6",
    "data.reader.num_categories=3",
    "data.reader.interactions_per_user=8",
    "data.k_core=0",
    "data.batch_size=64",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "callbacks.diagnostics.plots=false",
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
    """Values of another kind than the setting's own value; the kind of a null is not known."""
    if isinstance(value, bool):
        return ["abc", 5, -1.5, math.nan, {}, []]
    if isinstance(value, (int, float)):
        return ["abc", math.nan, -math.inf, 1e308, True, {}, [[]]]
    if isinstance(value, list):
        return ["abc", 5, True, math.nan, {"a": 1}]
    if isinstance(value, str):
        return [5, True, math.nan, {}, [[]]]
    return [math.nan, -math.inf]


def refused(plain, name, value):
    """By the check of its root, which is quick."""
    root, *parents, leaf = name.split(".")
    changed = copy.deepcopy(plain[root])
    node = changed
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    try:
        check_types(root, changed)
    except UserError as error:
        assert name in str(error), f"{name}={value!r}: {error}"
        return True
    return False


@pytest.mark.parametrize("option", OPTIONS)
def test_a_value_of_the_wrong_kind_is_refused_by_name(option):
    config = composed(option)
    drop_unknown(config)
    plain = OmegaConf.to_container(config, resolve=True)
    own = option.split("=")[0].replace("/", ".")
    roots = ("trainer", "callbacks", "metric") if option == "data=synthetic" else ()
    accepted = [
        f"{name}={value!r}"
        for name, stands in leaves(plain)
        if name.startswith((f"{own}.", *(f"{root}." for root in roots)))
        and name not in NUMBER_OR_TEXT
        for value in wrong_values(stands)
        if not refused(plain, name, value)
    ]
    assert not accepted


def drop_unknown(config):
    config.paths.run_dir = "run"  # Hydra's, of a run
    for part in (config.data.reader, config.data.split):
        for key in [key for key in part if OmegaConf.is_missing(part, key)]:
            part[key] = "given"


@pytest.mark.parametrize("name", ["seed", "ckpt_path", "dry", "paths.data_dir", "paths.output_dir"])
def test_a_plain_setting_is_checked(name):
    for value in (math.nan, [[]], -1.5, {}):
        with pytest.raises(UserError, match=name):
            check_changed(name, value)


@pytest.mark.parametrize(
    "name", ["data", "callbacks", "callbacks.best", "metric", "metric.ndcg", "logger"]
)
def test_a_text_stands_for_no_node(name):
    for value in ("abc", 5, True, [[]]):
        with pytest.raises(UserError, match=name):
            check_changed(name, value)


def check_changed(name, value, *options):
    config = composed(*options).copy()
    OmegaConf.update(config, name, value, merge=False)
    check_config(config)


def test_a_whole_float_is_an_int_where_one_is_wanted():
    config = composed(
        "data.batch_size=1e6", "metric.ndcg.k=[1e1,50]", "loss.lambda1=2.0", "seed=3.0"
    ).copy()
    check_config(config)
    assert repr(config.data.batch_size) == "1000000" and config.metric.ndcg.k == [10, 50]
    assert repr(config.seed) == "3" and repr(config.data.seed) == "3"  # ${seed}
    assert repr(config.loss.lambda1) == "2.0"  # a weight, which may have a fraction
    with pytest.raises(UserError, match="data.batch_size must be a valid integer, got 512.5"):
        check_config(composed("data.batch_size=512.5"))


ROOTS = (
    "data",
    "negatives",
    "model",
    "loss",
    "metric",
    "optimizer",
    "trainer",
    "callbacks",
    "logger",
    "paths",
)
ONLY_CHECKED = {
    "data/split=given",
    "loss=multi_objective",
    "logger=tensorboard",
}  # they need data or packages
TRAINED_EACH = 2  # accepted values of a setting that are trained with; FUZZ=all: every one


def settings_of(option, root):
    """Names of the option's own settings; without one, of all settings below ``root``."""
    names = [name for name, _ in leaves(OmegaConf.to_container(composed(*filter(None, [option]))))]
    if option:
        return [
            name for name in names if name.startswith(option.split("=")[0].replace("/", ".") + ".")
        ]
    added = [f"{node}.{name}" for node, names in ADDED.items() for name in names.split()]
    return [
        name
        for name in [*names, *added]
        if name.split(".")[0] == root or root == "" and "." not in name
    ]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("option", "root"),
    [("", root) for root in ("", *ROOTS)]
    + [(option, "") for option in OPTIONS if not option.startswith("data=")],
)
def test_any_value_ends_in_a_line_or_in_a_result(script, option, root):
    """A line names the setting; a result has finite metrics."""
    wrong = []
    for name in settings_of(option, root):
        accepted = []
        for value in VALUES:
            reason = refusal(option, name, value)
            if reason is None:
                accepted.append(value)
            elif name.split(".")[-1] not in reason:
                wrong.append(f"{name}={value}: {reason}")
        if option in ONLY_CHECKED:
            continue
        if os.environ.get("FUZZ") != "all":
            accepted = random.Random(name).sample(accepted, min(TRAINED_EACH, len(accepted)))
        for value in accepted:
            reason = misbehaviour(script, option, name, value)
            if reason:
                wrong.append(f"{name}={value}: {reason}")
    assert not wrong, "\n".join(wrong)


def refusal(option, name, value):
    """What the check of the config says, None if it accepts the value."""
    try:
        check_changed(
            name,
            OverridesParser.create().parse_override(f"{name}={value}").value(),
            *filter(None, [option]),
        )
    except UserError as error:
        return str(error)
    return None


def misbehaviour(script, option, name, value):
    """What is wrong with a training of these settings, None if nothing is."""
    options = [option] if option else []
    leaf = name.split(".")[-1]
    run = script.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    try:
        done = script("train", *SMALL, *options, f"++{name}={value}", "hydra.run.dir=run")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if done.returncode == 0:
        figures = script.metrics("run")["test"].values() if (run / "metrics.json").exists() else []
        return None if all(map(math.isfinite, figures)) else "metrics that are no numbers"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    names = (leaf, f"{name.rsplit('.', 1)[0]}.")  # itself, or one of the settings beside it
    said = errors[0].replace("/", ".") if len(errors) == 1 else ""
    return None if any(text in f"{said}." for text in names) else done.stderr[-300:]
