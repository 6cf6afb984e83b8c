"""Spaces of a search: which settings each variant varies, and what is refused."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from tests.conftest import ROOT
from tests.helpers.composition import CONF
from twotower.errors import UserError
from twotower.run.settings import fingerprint
from twotower.sweep.candidates import candidate, check_together, label_of
from twotower.sweep.plan import Run
from twotower.sweep.space import Distribution, grid_of, read_space

SHARED = ["optimizer.lr", "optimizer.weight_decay", "loss.task.temperature", "model.dropout"]
LAMBDAS = ["loss.lambda1", "loss.lambda2", "loss.lambda3"]


def candidates(*variants, given=(), varied=("variant",)):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return [_candidate([f"variant={name}", *given], varied) for name in variants]


def _candidate(given, varied):
    overrides = ["sweep=search", *given]
    config = compose("train", overrides, return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    names = (choices["model"], choices["data"])
    base = Run(overrides, ROOT, fingerprint(config), *names, config, choices)
    loader = GlobalHydra.instance().config_loader()
    return candidate(label_of(base, varied), base, loader, "train")


def test_variants_share_what_both_have_and_dat_has_its_weights():
    dat, two_tower, none, sasrec = candidates("dat", "two_tower", "dat_lambda0", "sasrec_dat")
    assert [one.label for one in (dat, two_tower)] == ["dat", "two_tower"]
    assert list(two_tower.space) == SHARED  # first, so that both draw the same values
    assert list(dat.space) == [*SHARED, *LAMBDAS]
    assert all(dat.space[key] == two_tower.space[key] for key in SHARED)
    check_together([dat, two_tower])
    # what a variant's file sets is the variant
    assert list(none.space) == SHARED
    assert none.fixed == dict.fromkeys(LAMBDAS, "set by the variant")
    assert "loss.task.temperature" not in sasrec.space and "loss.lambda1" in sasrec.space


def test_a_file_of_the_variant_or_the_command_frees_what_the_variant_sets():
    (freed,) = candidates("dat_cal", given=("+search.loss.lambda1={low: 1, high: 2}",))
    assert [key for key in LAMBDAS if key in freed.space] == ["loss.lambda1", "loss.lambda3"]
    alone, cal = candidates("sasrec_dat_lambda1", "two_tower_cal")
    assert [key for key in LAMBDAS if key in alone.space] == ["loss.lambda1"]
    assert [key for key in LAMBDAS if key in cal.space] == ["loss.lambda3"]


def test_another_shared_space_keeps_the_files_of_model_and_variant():
    given = ("search=strong",)
    base, dat, one = candidates("sasrec", "sasrec_dat", "sasrec_dat_lambda1", given=given)
    shared = ["optimizer.lr", "optimizer.weight_decay", "model.history.dropout"]
    assert list(base.space) == shared
    assert list(dat.space) == [*shared, *LAMBDAS]
    assert list(one.space) == [*shared, "loss.lambda1"]
    check_together([base, dat, one])


def test_closed_form_searches_its_own_settings():
    (tuned,) = candidates("tuned_ials")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = _candidate(["model=ials"], ())
    assert plain.label == "ials" and plain.space == tuned.space
    assert set(plain.space) == {"model.unobserved_weight", "model.regularization"}


def test_the_command_changes_the_space_and_fixes_settings():
    given = (
        "search.optimizer.lr.high=0.1",
        "search.model.dropout=null",
        "+search.model.dim=[16,32]",
        "+search.loss.lambda1.high=1",
        "optimizer.weight_decay=0",
    )
    (dat,) = candidates("dat", given=given)
    assert dat.space["optimizer.lr"].high == 0.1
    assert dat.space["model.dim"].choices == (16, 32)
    assert dat.space["loss.lambda1"] == Distribution(0.001, 1, log=True)
    assert "model.dropout" not in dat.space
    assert dat.fixed["optimizer.weight_decay"] == "given by the command"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "+search.optimizer.lrr={low: 1, high: 2}",
            r"unknown setting search.optimizer.lrr \(did you mean optimizer.lr\?\)",
        ),
        (
            "+search.model.history.pooling=[a,b]",
            r"unknown setting search.model.history.pooling \(did you mean model.history.length\?",
        ),
        (
            "+search.model.history=[mean,gru]",
            "search.model.history: a config group cannot be searched, .*model/history=mean,gru$",
        ),
        ("+search.callbacks.best=[1,2]", "search.callbacks.best is a node"),
        (
            "+search.optimizer.lr.hgih=1",
            r"unknown key search.optimizer.lr.hgih \(did you mean high",
        ),
        ("search.optimizer.lr.low=0", "search.optimizer.lr with log: true must have a low above 0"),
        ("search.optimizer.lr.low=1", "search.optimizer.lr must have a low below its high"),
        ("search.optimizer.lr.low=x", "search.optimizer.lr.low must be a finite number, got 'x'"),
        ("search.optimizer.lr=3", "search.optimizer.lr must have low and high, or choices, got 3"),
    ],
)
def test_a_mistake_in_a_space_is_one_clear_line(given, line):
    with pytest.raises(UserError, match=f"^{line}"):
        candidates("two_tower", given=(given,))


def test_two_distributions_of_one_setting_are_refused():
    dat, two_tower = candidates("dat", "two_tower")
    wide = two_tower._replace(space={"optimizer.lr": Distribution(1e-4, 1, log=True)})
    with pytest.raises(UserError, match="^optimizer.lr is searched in 0.0003 to 0.01, log for dat"):
        check_together([dat, wide])


def test_a_grid_has_ends_and_middle():
    space = {
        "a": Distribution(0.01, 1, log=True),
        "b": Distribution(2, 6, whole=True),
        "c": Distribution(choices=("x", None)),
    }
    assert space["a"].grid() == [0.01, 0.1, 1] and space["b"].grid() == [2, 4, 6]
    assert len(grid_of(space, 18, "dat")) == 18
    with pytest.raises(UserError, match="the grid of dat has 18 points, fewer than budget=19"):
        grid_of(space, 19, "dat")


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "search").glob("*.yaml")))
def test_every_file_is_a_space(path):
    for distribution in read_space(yaml.safe_load(path.read_text())).values():
        assert distribution is None or distribution.grid()
