"""``hydra/launcher=fused``: what it gives to a pass, what it returns, what a failing run does."""

import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from hydra.types import HydraContext

from hydra_plugins.twotower_fused import FusedLauncher
from tests.helpers.composition import CONF, compose_train
from tests.helpers.runs import SMALL
from twotower.errors import UserError
from twotower.sweep import memory
from twotower.sweep.memory import extrapolated, runs_that_fit, take_steps
from twotower.training.fused import lockstep

TINY = (
    "data.reader.num_users=60",
    "data.reader.num_items=30",
    "data.reader.interactions_per_user=10",
    *SMALL[3:],
)
FUSED = ("-m", *TINY, "trainer.max_epochs=1", "model=mf", "hydra/launcher=fused")


@pytest.fixture
def groups(monkeypatch):
    """The numbers of runs of each pass; its runs are started from the last to the first."""
    found = []

    def run_together(jobs, *settings):
        found.append(len(jobs))
        for job in reversed(jobs):
            job()

    monkeypatch.setattr(lockstep, "run_together", run_together)
    return found


@pytest.fixture
def launch(tmp_path):
    """A function that launches jobs of a task function."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        fixed = ["hydra/launcher=fused", "hydra.mode=MULTIRUN", f"hydra.sweep.dir={tmp_path}"]
        config = compose("train", fixed, return_hydra_config=True)
        context = HydraContext(hydra.config_loader, Callbacks())

        def launch(task, jobs, first=0):
            launcher = FusedLauncher(None)
            launcher.setup(hydra_context=context, task_function=task, config=config)
            return launcher.launch(jobs, initial_job_idx=first)

        yield launch


def test_outcomes_are_in_the_order_of_the_jobs(launch, groups, tmp_path):
    jobs = [[f"seed={seed}", f"model={model}"] for seed in (0, 1) for model in ("mf", "ials", "fm")]
    started = []

    def task(config):
        hydra = HydraConfig.get()
        assert hydra.runtime.output_dir == str(tmp_path / hydra.sweep.subdir)
        started.append(hydra.job.num)
        if hydra.job.num == 12:
            raise UserError("of fm")
        return config.seed, hydra.runtime.choices.model

    named = [[*job, f"hydra.sweep.subdir={number}"] for number, job in enumerate(jobs)]
    outcomes = launch(task, named, first=10)
    assert groups == [2, 2] and started == [13, 10, 11, 15, 12, 14]
    assert [list(each.overrides) for each in outcomes] == jobs
    (failed,) = [each for each in outcomes if each.status == JobStatus.FAILED]
    with pytest.raises(UserError, match="of fm"):
        assert failed.return_value
    kept = [each.return_value for each in outcomes if each is not failed]
    assert kept == [(0, "mf"), (0, "ials"), (1, "mf"), (1, "ials"), (1, "fm")]


def test_a_failing_run_stops_no_other_of_its_pass(script, groups):
    command = (*FUSED, "optimizer.lr=0.01,0.02", "data.k_core=0")
    sweep = script.folder / "outputs" / "sweeps" / "optimizer.lr-synthetic"
    run = script("train", *command)
    assert run.returncode == 0 and groups == [2], run.stderr
    first, second = sorted(sweep.glob("*/metrics.json"))
    first.unlink()
    (first.parent / "checkpoints" / "last.ckpt").write_text("damaged")
    second.parent.rename(sweep / "away")
    again = script("train", *command)
    assert again.returncode == 1 and "1 of 2 runs did not finish" in again.stderr
    assert groups == [2, 2] and second.exists() and first.with_name("failed.json").exists()
    # a resumed run of a pass stays one, a new one is trained alone
    assert "pass 1: 1 run, as" in script("train", *command, "dry=true").stdout
    (first.parent / "checkpoints" / "last.ckpt").unlink()
    plan = script("train", *command, "dry=true").stdout
    assert "alone: 1, because the other runs of its pass are done" in plan


def test_a_plan_shows_what_the_launcher_gets_at_a_time(script, groups):
    command = (*FUSED, "seed=0,1,2,3,4", "data.k_core=1000", "hydra.sweeper.max_batch_size=3")
    plan = script("train", *command, "dry=true").stdout
    assert "pass 1: 3 runs in one, model=mf data=synthetic seed=0,1,2\n" in plan
    assert "pass 2: 2 runs in one, model=mf data=synthetic seed=3,4\n" in plan
    assert script("train", *command).returncode == 1  # no interaction is left
    assert groups == [3, 2]


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_max_runs_is_a_whole_number(script, value):
    run = script("train", *FUSED, "seed=0,1", f"hydra.launcher.max_runs={value}", "dry=true")
    assert run.returncode == 1 and "hydra.launcher.max_runs must be" in run.stderr, run.stderr


def test_the_memory_of_a_gpu_limits_passes_unless_a_number_is_given(monkeypatch, capsys):
    configs = [compose_train(f"seed={seed}") for seed in range(4)]
    asked = []

    def fit(group, prepares):
        asked.append((len(group), prepares))
        return 2

    monkeypatch.setattr(memory, "runs_that_fit", fit)
    for on_gpu, max_runs, expected in ((True, None, 2), (True, 4, 1), (False, None, 1)):
        monkeypatch.setattr("hydra_plugins.twotower_fused.trains_on_gpu", lambda _, on=on_gpu: on)
        assert len(FusedLauncher(max_runs).passes(configs, prepares=False)) == expected
    assert asked == [(4, False)]
    assert capsys.readouterr().out == "the GPU's memory holds 2 of 4 runs of a shape\n"
    monkeypatch.setattr("hydra_plugins.twotower_fused.trains_on_gpu", lambda _: True)
    FusedLauncher(None).passes(configs, todo=[])  # all done: nothing to measure
    assert asked == [(4, False)]


def test_runs_that_fit_follow_from_a_pass_of_one_and_of_two():
    peaks = {1: 300, 2: 350}.get
    assert extrapolated(peaks, wanted=27, available=1000) == 15  # 300 + 14 * 50
    assert extrapolated(peaks, wanted=27, available=100) == 1
    assert extrapolated({1: 300, 2: 300}.get, wanted=27, available=310) == 11  # a run of a byte
    assert extrapolated({1: 300}.get, wanted=3, available=900) == 3  # whatever two need

    def peak(num):
        if num == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 300

    assert extrapolated(peak, wanted=27, available=1000) == 1


def test_what_is_measured_trains_runs_of_two_seeds(tmp_path, monkeypatch):
    fixed = (*TINY, f"paths.cache_dir={tmp_path}", "paths.run_dir=x", "data.k_core=0")
    configs = [compose_train(*fixed, f"seed={seed}") for seed in range(3)]
    assert runs_that_fit(configs) is None or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 2000))
    monkeypatch.setattr(memory, "_release", lambda: None)
    assert runs_that_fit(configs, prepares=False) is None  # the data are not prepared
    assert not list(tmp_path.iterdir())

    def peak(some):
        assert [config.seed for config in some] == [0, 2][: len(some)]
        take_steps(some, "cpu")
        return 300 + 100 * len(some)

    monkeypatch.setattr(memory, "_peak", peak)
    assert runs_that_fit(configs) == 5  # 300 + 5 * 100 bytes are 80 % of 1000
    assert compose_train(*fixed).data == configs[0].data  # no derived value stays in it


def test_what_is_measured_has_the_settings_of_the_trainer(tmp_path, monkeypatch):
    fixed = (*TINY, f"paths.cache_dir={tmp_path}", "paths.run_dir=x", "data.k_core=0")
    of_trainer = ("trainer.precision=64-true", "+trainer.gradient_clip_val=0.5")
    made, build = [], memory.FusedRuns
    monkeypatch.setattr(memory, "FusedRuns", lambda *a, **k: made.append(build(*a, **k)) or made[0])
    take_steps([compose_train(*fixed, *of_trainer)], "cpu")
    assert {whole.dtype for whole in made[0].stack.parameters.values()} == {torch.float64}
    assert made[0].clip == (0.5, "norm")


def test_a_failure_of_the_measurement_is_left_to_the_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 2000))
    monkeypatch.setattr(memory, "_release", lambda: None)
    config = compose_train("data=table", f"data.reader.interactions={tmp_path / 'none.csv'}")
    assert runs_that_fit([config, config]) is None


def test_times_of_a_pass_estimate_runs_of_a_pass_alone(script):
    """A run of a pass takes the whole pass's time, of which it has a share."""
    command = ("-m", "model=mf", "seed=0,1")
    folder = script.folder / "outputs" / "earlier"
    folder.mkdir(parents=True)
    record = {"model": "mf", "data": "synthetic", "overrides": ["model=mf", "seed=7"]}
    record |= {"wall_seconds": 600, "fused": 20}
    (folder / "metrics.json").write_text(json.dumps(record))
    plan = script("train", *command, "hydra/launcher=fused", "dry=true").stdout
    assert "About 60 s, from the finished runs among 1 in outputs" in plan
    assert "No estimate" in script("train", *command, "dry=true").stdout


def test_a_sweep_that_goes_on_has_the_passes_that_it_had(script, groups):
    """Runs that are done count, else the rest would be divided anew."""
    command = (*FUSED, "seed=0,1,2,3,4,5", "data.k_core=0", "hydra.launcher.max_runs=4")
    sweep = script.folder / "outputs" / "sweeps" / "seed-synthetic"

    def shown():
        plan = script("train", *command, "dry=true").stdout
        return [line for line in plan.splitlines() if line.startswith(("pass", "alone"))]

    whole = [
        f"pass {n}: 3 runs in one, model=mf data=synthetic seed={own}"
        for n, own in ((1, "0,1,2"), (2, "3,4,5"))
    ]
    assert shown() == whole
    script("train", *command, "seed=0,2", "hydra.launcher.max_runs=1")  # each alone
    assert groups == [] and len(list(sweep.glob("*/metrics.json"))) == 2
    alone, other = shown()
    assert alone == "pass 1: 3 runs in one, model=mf data=synthetic seed=3,4,5"
    assert other == "alone: 2, because the other runs of its pass are done"
