"""Every option composes and fits its constructor; presets of papers have the papers' settings."""

import inspect

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from tests.helpers.composition import compose_train
from twotower.run.checks.checks import check_config
from twotower.run.checks.signatures import read_signature
from twotower.run.conf import CONF, PARTS
from twotower.run.settings import changes_result, is_unset

OPTIONS = [
    str(path.relative_to(CONF).with_suffix(""))
    for path in sorted(CONF.rglob("*.yaml"))
    if path.parent != CONF
    and str(path.relative_to(CONF).with_suffix("")) not in PARTS
    and path.parent.name not in ("metric", "index", "benchmark", "callbacks")
]


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_matches_its_constructor(option):
    group, name = option.rsplit("/", 1)
    owner = ["sweep=search"] if group == "search" else []  # alone has this group
    config = compose_train(*owner, f"{group}={name}")
    OmegaConf.set_struct(config, False)
    check_config(config)


def targets_of(node):
    """The classes that a config names."""
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        for value in node.values():
            yield from targets_of(value)


def test_the_source_of_every_constructor_of_ours_is_found():
    """Or a dry run would take any setting of it, and any value."""
    nodes = [OmegaConf.to_container(OmegaConf.load(path)) for path in CONF.rglob("*.yaml")]
    ours = {name for node in nodes for name in targets_of(node) if name.startswith("twotower.")}
    assert len(ours) > 50
    assert not [target for target in ours if read_signature(target) is None]


def defaults_of_constructors(place, node):
    """Dotted names and values, other than null, that repeat the default of our constructor."""
    if not isinstance(node, dict):
        return
    target = str(node.get("_target_"))
    known = inspect.signature(get_object(target)).parameters if "twotower." in target else {}
    for key, value in node.items():
        if key in known and value is not None and known[key].default == value:
            yield f"{place}.{key}", value
        yield from defaults_of_constructors(f"{place}.{key}", value)


def test_new_settings_leave_finished_runs_as_they_are():
    """A constructor has a default for a setting that older checkpoints lack; it is unset."""
    found = {}
    for option in OPTIONS:
        node = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"), resolve=False)
        place = option.rpartition("/")[0].replace("/", ".")
        found |= dict(defaults_of_constructors(place, node))
    assert found["model.tower"] == "mlp"
    for key, value in found.items():
        assert not changes_result(key) or is_unset(key, value), f"add {key} to ADDED"


def test_the_paper_preset_is_the_paper():
    config = compose_train("experiment=dat_paper")
    assert config.model._target_.endswith("DAT") and config.loss.task._target_.endswith("BCE")
    assert config.negatives._target_.endswith("Uniform")
    assert (config.model.embedding_dim, list(config.model.hidden_dims), config.model.dim) == (
        32,
        [256, 128],
        32,
    )
    assert (config.model.activation, config.model.last_activation, config.model.normalize) == (
        "relu",
        "relu",
        True,
    )
    assert (config.loss.lambda1, config.loss.lambda2, config.loss.lambda3) == (0.5, 0.5, 1.0)
    assert (config.loss.reduction, config.loss.over_dim, config.loss.task.temperature) == (
        "pairs",
        "sum",
        1.0,
    )
    assert config.data.batch_size == 256 and config.optimizer.weight_decay == 0


def test_dat_and_two_tower_presets_differ_in_the_model_and_its_loss_alone():
    dat, plain = (compose_train(f"experiment={name}_movielens_1m") for name in ("dat", "two_tower"))
    for key in ("data", "negatives", "optimizer", "trainer", "metric", "callbacks"):
        assert dat[key] == plain[key], key
    assert dat.loss.task == plain.loss.task
    own = ("_target_", "augment_gradient", "augment_momentum")
    assert {k: v for k, v in dat.model.items() if k not in own} == {
        k: v for k, v in plain.model.items() if k not in ("_target_", "id_extra_dim")
    }
    assert plain.model.id_extra_dim == 0


def test_a_model_chooses_its_loss_and_the_command_line_has_the_last_word():
    assert compose_train("model=dat").loss.lambda3 == 1.0
    assert compose_train("model=two_tower").loss.lambda3 == 0
    assert compose_train("model=two_tower", "loss=dat").loss.lambda3 == 1.0
    assert compose_train("loss/task=full_softmax").negatives._target_.endswith("Corpus")
    assert compose_train("loss/task=full_softmax", "negatives=shared_uniform").negatives.num == 1024
