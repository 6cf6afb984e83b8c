"""Names, states, duplicates and estimates of runs; every sweep and variant keeps its promise."""

import json
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.helpers.composition import compose_train
from twotower.errors import UserError
from twotower.run.run_folder import RunFolder
from twotower.run.settings import fingerprint
from twotower.sweep.plan import (
    Run,
    estimate_seconds,
    refuse_axes,
    refuse_twins,
    run_name,
    sweep_name,
)

VARIANTS = sorted(path.stem for path in (ROOT / "conf" / "variant").glob("*.yaml"))


def test_a_run_is_named_by_its_overrides_in_any_order():
    assert (
        run_name(["variant=dat", "seed=0"])
        == run_name(["seed=0", "variant=dat"])
        == "seed-0+variant-dat"
    )
    assert (
        run_name(
            ["sweep=ablation", "data=movielens_1m", "seed=0", "paths.output_dir=x", "dry=true"],
            ["data"],
        )
        == "seed-0"
    )
    assert run_name([]) == "default"


def test_what_a_plain_name_cannot_tell_apart_has_a_hash():
    names = [
        run_name(["a=1", "b=2"]),
        run_name(["a='1+b=2'"]),
        run_name(["a=1+b-2"]),
        run_name(["model/history=gru"]),
        run_name(["model.history=gru"]),
        run_name(["+a=1", "b=2"]),
        run_name(["a='x y'"]),
        run_name(["a='x/y'"]),
        run_name([f"a={'x' * 200}"]),
        run_name([f"a={'x' * 199}y"]),
    ]
    assert len(set(names)) == len(names)
    assert all(
        len(name) < 140 and "/" not in name and "=" not in name and "," not in name
        for name in names
    )


def test_whatever_is_varied_names_its_run():
    for key in (
        "data.history_length",
        "data.reader.interactions",
        "data.split.min_history",
        "data",
    ):
        assert run_name([f"{key}=2"], ["data"], [key]) != run_name([f"{key}=4"], ["data"], [key]), (
            key
        )
    assert (
        run_name(["data.batch_size=64", "seed=0"], ["data"], ["seed"])
        == "data.batch_size-64+seed-0"
    )  # fixed ones too
    assert run_name(["data/split=temporal", "data=table"], ["data"]) != run_name(
        ["data=table"], ["data"]
    )
    long = [f"data.reader.interactions={'x' * 150}", "seed=0"]
    assert run_name(long, ["data"], ["seed"]).startswith("seed-0@")
    assert run_name(["logger=none"]) == "default"
    assert run_name(["logger=none"], varied=["logger"]) == "logger-none"


def test_what_a_sweep_cannot_vary_is_refused():
    refuse_axes(["seed", "logger", "trainer.accelerator"])
    for key in ("ckpt_path", "dry", "sweep"):
        with pytest.raises(UserError, match=f"^{key} cannot be varied: "):
            refuse_axes([key])


def test_another_folder_of_raw_files_is_other_data():
    config = compose_train()
    other = compose_train("paths.data_dir=elsewhere")
    assert fingerprint(config) != fingerprint(other)
    assert run_name(["paths.data_dir=a"]) != run_name(["paths.data_dir=b"]) != "default"


keys = st.sampled_from(
    ["seed", "loss.lambda3", "model", "model/history", "data.group_shares", "data/split"]
)
values = st.text("ab01.,+-=/[]' ", min_size=1, max_size=6)


@given(*[st.dictionaries(keys, values, max_size=3)] * 2)
def test_two_sets_of_overrides_never_share_a_name(one, other):
    names = [
        run_name([f"{key}={value}" for key, value in overrides.items()])
        for overrides in (one, other)
    ]
    assert (names[0] == names[1]) == (one == other)


def test_a_sweep_is_named_by_its_option_or_by_what_it_varies():
    assert sweep_name("ablation", {"seed": "0,1"}, "movielens_1m") == "ablation-movielens_1m"
    assert (
        sweep_name(None, {"seed": "0,1", "loss.lambda3": "0,1"}, "synthetic")
        == "loss.lambda3+seed-synthetic"
    )
    assert sweep_name("seeds", {"data": "globo,taobao"}, "synthetic").startswith(
        "seeds-globo+taobao"
    )


def test_a_fingerprint_is_of_what_decides_the_result():
    config = compose_train("model=dat")

    def changed(key, value):
        other = config.copy()
        OmegaConf.update(other, key, value, merge=False)
        return fingerprint(other)

    base = fingerprint(config)
    for key, value in (
        ("logger", None),
        ("paths.output_dir", "x"),
        ("callbacks.progress", None),
        ("dry", True),
    ):
        assert changed(key, value) == base, key
    for key in ("data.history_times", "model.tower"):  # a run from before they were there
        older = config.copy()
        OmegaConf.set_struct(older, False)
        parent, name = key.split(".")
        del older[parent][name]
        assert fingerprint(older) == base, key
    for key, value in (
        ("model.tower", "residual"),
        ("seed", 1),
        ("loss.lambda3", 0.5),
        ("trainer.max_epochs", 11),
        ("trainer.devices", 2),
        ("negatives.num", 9),
    ):
        assert changed(key, value) != base, key
    assert (
        fingerprint(config) == base and config.callbacks.progress is not None
    )  # it is not the config that loses them


def test_states_of_a_folder(tmp_path):
    folder = tmp_path / "run"
    assert RunFolder(folder).status("f") == "new"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".fingerprint").write_text("f")
    assert RunFolder(folder).status("f") == "new"  # killed before its first checkpoint
    (folder / "checkpoints" / "last.ckpt").touch()
    assert (RunFolder(folder).status("f"), RunFolder(folder).status("g")) == ("resume", "changed")
    (folder / "failed.json").touch()
    assert (RunFolder(folder).status("f"), RunFolder(folder).status("g")) == ("failed", "changed")
    (folder / "metrics.json").write_text("{")  # damaged: it is written again
    assert RunFolder(folder).status("f") == "failed"
    (folder / "metrics.json").write_text('{"model": "mf"}')
    assert (RunFolder(folder).status("f"), RunFolder(folder).status("g")) == ("done", "changed")
    (folder / ".fingerprint").unlink()
    assert RunFolder(folder).status("f") == "changed"  # nothing says whose it is
    moved = RunFolder(folder).set_aside()
    assert (
        not folder.exists()
        and (moved / "metrics.json").exists()
        and tmp_path not in moved.parent.parents[:1]
    )
    assert moved.parent == tmp_path.with_name(f"{tmp_path.name}.earlier")


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.write_bytes(b"\xff"),
    ],
)
def test_an_odd_mark_is_that_of_another_run(tmp_path, make):
    (tmp_path / "failed.json").touch()
    make(tmp_path / ".fingerprint")
    assert RunFolder(tmp_path).status("f") == "changed"


def run(folder, print_, *overrides):
    return Run(list(overrides), folder, print_, "dat", "synthetic")


def test_twins_are_refused(tmp_path):
    one, other = (
        run(tmp_path / "a", "f", "seed=0", "variant=dat"),
        run(tmp_path / "b", "f", "seed=0", "variant=dat_amm"),
    )
    refuse_twins([one, run(tmp_path / "c", "g", "seed=1")])
    with pytest.raises(UserError, match=r"^variant=dat and variant=dat_amm are the same run"):
        refuse_twins([one, other])
    idle = [run(tmp_path / name, "f", f"callbacks.progress={name}") for name in "ab"]
    refuse_twins(idle)  # of one result, but the sweep asks for both


def test_an_estimate_prefers_the_same_overrides_and_ignores_the_seed(tmp_path):
    def finished(name, seconds, *overrides):
        (tmp_path / name).mkdir()
        record = {
            "wall_seconds": seconds,
            "overrides": list(overrides),
            "model": "dat",
            "data": "synthetic",
        }
        (tmp_path / name / "metrics.json").write_text(json.dumps(record))

    finished("a", 10, "variant=dat", "seed=0", "logger=none")
    finished("b", 30, "variant=dat_amm", "seed=0")
    finished("c", 50, "variant=dat_amm", "seed=1")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "metrics.json").write_text("{")
    same, like = (
        run(tmp_path / "x", "f", *texts)
        for texts in (("variant=dat", "seed=7"), ("variant=dat_cal", "seed=0"))
    )
    other = like._replace(model="mf")
    assert estimate_seconds([same, like, other], tmp_path) == (
        [10, 30, None],
        3,
    )  # of 10, 30 and 50 the median


@pytest.mark.parametrize("base", ["sasrec_beauty", "sasrec_movielens_1m"])
def test_a_part_of_dat_is_added_to_the_same_strong_base(base):
    plain = compose_train(f"experiment={base}")
    parts = {"": [1, 2, 3], "_lambda0": [], "_lambda1": [1], "_lambda2": [2], "_lambda3": [3]}
    parts |= {"_amm": [1, 2], "_running_mean": [3]}
    parts |= {"_shuffled": [1, 2, 3], "_mean": [1, 2, 3], "_mimic": [1, 2, 3]}
    for part, on in parts.items():
        config = compose_train(f"experiment={base}", f"variant=sasrec_dat{part}")
        assert [i for i in (1, 2, 3) if config.loss[f"lambda{i}"] > 0] == on
        assert (config.model.tower, plain.model.tower) == ("residual", "identity")
        assert config.loss.task == plain.loss.task and config.model.history == plain.model.history
        for key in ("data", "negatives", "optimizer", "trainer", "metric", "callbacks", "seed"):
            assert config[key] == plain[key], (part, key)


@pytest.mark.parametrize("base", ["dat_paper", "two_tower_movielens_1m"])
def test_a_variant_says_what_it_is_on_any_preset(base):
    """In the order lambda1, lambda2, lambda3: which are above 0."""
    parts = {
        "two_tower": ("TwoTower", (0, 0, 0)),
        "two_tower_wide": ("TwoTower", (0, 0, 0)),
        "two_tower_cal": ("TwoTower", (0, 0, 1)),
        "dat_lambda0": ("DAT", (0, 0, 0)),
        "dat_lambda1": ("DAT", (1, 0, 0)),
        "dat_lambda2": ("DAT", (0, 1, 0)),
        "dat_running_mean": ("DAT", (0, 0, 1)),
        "dat_amm": ("DAT", (1, 1, 0)),
        "dat_cal": ("DAT", (0, 0, 1)),
        "dat": ("DAT", (1, 1, 1)),
        "dat_literal": ("DAT", (1, 1, 1)),
        "dat_mean": ("DAT", (1, 1, 1)),
        "dat_mimic": ("DAT", (1, 1, 1)),
        "dat_practical": ("DAT", (1, 1, 1)),
        "dat_shuffled": ("DAT", (1, 1, 1)),
    }
    whole_models = ("tuned_", "sasrec", "bsarec")
    assert sorted(parts) == [name for name in VARIANTS if not name.startswith(whole_models)]
    plain = compose_train(f"experiment={base}", "variant=two_tower")
    for name, (model, on) in parts.items():
        config = compose_train(f"experiment={base}", f"variant={name}")
        assert config.model._target_.endswith(f".{model}"), name
        assert tuple(int(config.loss[f"lambda{i}"] > 0) for i in (1, 2, 3)) == on, name
        assert config.loss.task == plain.loss.task and config.model.dim == plain.model.dim
        for key in ("data", "negatives", "optimizer", "trainer", "metric", "callbacks", "seed"):
            assert config[key] == plain[key], (name, key)


def test_literal_and_practical_are_two_losses():
    literal, practical = (
        compose_train(f"variant=dat_{name}").loss for name in ("literal", "practical")
    )
    assert (
        literal.alignment == compose_train("experiment=dat_paper").loss.alignment
        and literal.reduction == "pairs"
    )
    assert practical.reduction == "positives" and practical.alignment.major == "global"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf" / "sweep").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_sweep_varies_settings_that_there_are(path):
    """Its first and its last run compose, and differ in whatever it varies."""
    text = yaml.safe_load(path.read_text())
    assert text["hydra"]["mode"] == "MULTIRUN"  # nobody who forgets -m gets a single run
    if path.stem in ("search", "confirm"):  # what they vary is no list of values
        assert "sweeper" not in text["hydra"]
        return
    varied = {
        key: str(values).split(",") for key, values in text["hydra"]["sweeper"]["params"].items()
    }
    assert next(iter(varied)) == "seed"
    first, last = (
        compose_train(f"sweep={path.stem}", *[f"{k}={v[i]}" for k, v in varied.items()])
        for i in (0, -1)
    )
    assert fingerprint(first) != fingerprint(last)
    for key, values in varied.items():
        assert len(set(values)) == len(values) > 1, key
        assert key == "variant" or OmegaConf.select(first, key) != OmegaConf.select(last, key)


def test_the_ablation_has_what_it_promises():
    text = yaml.safe_load((ROOT / "conf" / "sweep" / "ablation.yaml").read_text())
    named = text["hydra"]["sweeper"]["params"]["variant"].split(",")
    assert named == [
        "two_tower",
        "dat_lambda0",
        "dat_amm",
        "dat_cal",
        "dat",
        "dat_literal",
        "dat_practical",
    ]
