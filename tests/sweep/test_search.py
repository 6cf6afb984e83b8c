"""Searches as their users start them: equal budgets, killed, pruned, confirmed, in one pass."""

import csv
import json
import shutil
import time
from types import SimpleNamespace

import pytest
import yaml

from hydra_plugins import twotower_sweeper
from tests.helpers.runs import SMALL
from tests.helpers.waiting import finish, wait_until
from twotower.errors import UserError
from twotower.run import search_files
from twotower.run.run_folder import RunFolder
from twotower.sweep import confirm
from twotower.sweep.confirm import confirming_jobs
from twotower.sweep.search import Search
from twotower.sweep.search_tables import print_search_outcome
from twotower.sweep.trials import Outcome, Trial
from twotower.training.fused import lockstep

pytest.importorskip("optuna")

TINY = (
    "data.reader.num_users=60",
    "data.reader.num_items=30",
    "data.reader.interactions_per_user=10",
    *SMALL[3:5],
    *SMALL[6:],
    "callbacks.epochs=null",
)
SEARCH = ("-m", "sweep=search", *TINY, "variant=dat,two_tower", "trainer.max_epochs=2")
PRUNED = ("callbacks.pruning.first_epoch=1", "callbacks.pruning.factor=2")
SHARED = ("optimizer.lr", "optimizer.weight_decay", "loss.task.temperature", "model.dropout")


def folder_of(script, name="search-synthetic"):
    return script.folder / "outputs" / "sweeps" / name


def trials(folder):
    """Rows of ``trials.csv`` without their times."""
    with (folder / "trials.csv").open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def records(folder):
    paths = folder.glob("*/metrics.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a search that nobody stops finds, and its output."""
    from tests.conftest import Script

    with pytest.MonkeyPatch.context() as patch:
        script = Script(tmp_path_factory.mktemp("whole"), patch)
        done = script("train", *SEARCH, *PRUNED, "budget=3")
        assert done.returncode == 0, done.stderr
        yield script, done.stdout


def test_all_variants_have_the_same_budget_space_and_draws(whole):
    script, out = whole
    rows = trials(folder_of(script))
    by_variant = {name: [r for r in rows if r["variant"] == name] for name in ("dat", "two_tower")}
    for own in by_variant.values():
        assert [row["number"] for row in own] == ["0", "1", "2"]
        assert {row["state"] for row in own} == {"complete", "pruned"}
    for dat, two_tower in zip(*by_variant.values(), strict=True):
        assert [dat[key] for key in SHARED] == [two_tower[key] for key in SHARED]
        assert dat["loss.lambda3"] and not two_tower["loss.lambda3"]
    about = yaml.safe_load((folder_of(script) / "search.yaml").read_text())
    assert (about["metric"], about["mode"], about["budget"]) == ("val/ndcg@10", "max", 3)
    assert (about["sampler"], about["pruner"]) == ("tpe", "successive_halving")
    assert about["data"] == "synthetic" and list(about["space"]) == ["dat", "two_tower"]
    assert about["space"]["two_tower"]["model.dropout"] == {"low": 0.0, "high": 0.5}
    assert "python src/train.py -m sweep=confirm search=outputs/sweeps/search-synthetic" in out


def test_a_trial_is_validated_and_never_tested(whole):
    script, _ = whole
    for name, record in records(folder_of(script)).items():
        assert record["test"] == {} and record["popularity"] is None, name
        assert record["val"] and not (folder_of(script) / name / "test_ranks.parquet").exists()
        assert record["budget"] == 3


def test_a_resumed_run_is_not_tested_either(script):
    given = ("test=false", "trainer.enable_progress_bar=false")
    run = ("model=mf", *TINY, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert script("train", *run, *given).returncode == 0
    again = script("train", "ckpt_path=run", *given, "trainer.max_epochs=2", "seed=0")
    assert again.returncode == 0, again.stderr
    record = json.loads((script.folder / "run" / "metrics.json").read_text())
    assert record["test"] == {} and record["val"] and record["epochs"] == 2


def test_a_pruned_trial_is_a_state_of_its_own(whole):
    script, _ = whole
    found = records(folder_of(script))
    for row in trials(folder_of(script)):
        record = found[f"{row['variant']}-{int(row['number']):03d}"]
        is_pruned = row["state"] == "pruned"
        assert record["status"] == ("pruned" if is_pruned else "completed")
        assert len(record["curve"]) == record["epochs"] == int(row["epochs"])
        assert record["epochs"] == (1 if is_pruned else 2)
        assert float(row["value"]) == record["val"]["ndcg@10"]
    listed = script("report", "list", "runs=outputs").stdout
    assert " pruned " in listed and " finished " in listed


def test_a_stopped_search_goes_on_with_the_same_trials(whole, script, monkeypatch):
    expected = trials(folder_of(whole[0]))
    folder, train, told = folder_of(script), Search._train, []

    def stopped(self, batch):
        """The second round is trained, and the process is killed before it tells."""
        if told:
            self.launch([run for _, _, run in batch], lambda: None)
            raise RuntimeError("killed")
        told.append(batch)
        train(self, batch)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Search, "_train", stopped)
        script("train", *SEARCH, *PRUNED, "budget=2")
    journal = folder / "journal.log"
    with journal.open("a") as file:
        file.write('{"op_code":4,"worker')  # a line that was not written to its end
    assert script("train", *SEARCH, *PRUNED, "budget=2").returncode == 0
    # a larger budget goes on, too
    again = script("train", *SEARCH, *PRUNED, "budget=3")
    assert again.returncode == 0 and again.stdout.count(": starts") == 2
    assert sorted(trials(folder), key=str) == sorted(expected, key=str)
    done = script("train", *SEARCH, *PRUNED, "budget=3")
    assert done.returncode == 0 and ": starts" not in done.stdout


def one_more_trial(folder):
    about, rows = search_files.read(folder)
    more = [{**row, "state": "failed"} for row in rows if row["number"] == "0"]
    return {**about, "budget": about["budget"] + 1}, rows + more


def test_the_best_settings_are_confirmed_with_new_seeds_and_tested(whole, monkeypatch):
    script, _ = whole
    folder = folder_of(script)
    done = script("train", "-m", "sweep=confirm", f"search={folder}", "seeds=1")
    assert done.returncode == 0, done.stderr
    found = list(records(folder_of(script, "confirm-search-synthetic")).values())
    assert sorted((run["model"], run["seed"]) for run in found) == [("dat", 1), ("two_tower", 1)]
    for run in found:
        complete = [
            row
            for row in trials(folder)
            if row["variant"] == run["model"] and row["state"] == "complete"
        ]
        best = max(complete, key=lambda row: float(row["value"]))
        assert all(run["settings"][key] == float(best[key]) for key in SHARED)
        assert run["budget"] == 3 and run["test"]["ndcg@10"] > 0 and "curve" not in run
    again = script("train", "-m", "sweep=confirm", f"search={folder}", "seeds=1")
    assert again.stdout.count("already done") == 2
    # the search goes on: its winners may be others
    monkeypatch.setattr(confirm, "read", one_more_trial)
    refused = script("train", "-m", "sweep=confirm", f"search={folder}", "seeds=1", "dry=true")
    assert refused.returncode == 1 and "with budget=3, and now it has budget=4" in refused.stderr
    both = f"runs=[{folder_of(script, 'confirm-search-synthetic')},{folder}]"
    report = script("report", both, "resamples=100").stdout
    assert "budget" in report and "6 runs not tested, as a trial of a search is not" in report


def test_runs_that_confirm_searches_of_one_name_are_told_apart(whole, script, monkeypatch):
    names = []
    monkeypatch.setattr(
        twotower_sweeper, "print_plan", lambda runs, *_: names.extend(r.folder for r in runs)
    )
    for data in ("movielens_100k", "movielens_1m"):
        folder = script.folder / data / "search"
        folder.mkdir(parents=True)
        shutil.copy(folder_of(whole[0]) / "trials.csv", folder)
        about = yaml.safe_load((folder_of(whole[0]) / "search.yaml").read_text())
        own = {label: [f"data={data}", f"variant={label}"] for label in about["overrides"]}
        (folder / "search.yaml").write_text(yaml.safe_dump({**about, "overrides": own}))
        given = (f"search={folder}", "seeds=1", "dry=true")
        assert script("train", "-m", "sweep=confirm", *given).returncode == 0
    assert len(set(names)) == len(names) == 4


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((), "search is missing: give the folder of a search"),
        (("search=nowhere/at/all",), "search=nowhere/at/all: there is no such folder"),
        (("search=nope",), "search=nope: there is no such folder"),
        (("search=shared",), "search=shared: there is no such folder"),
        (("search=.",), "search=.: there is no search.yaml"),
        (("search=.", "variant=dat"), "variant cannot be varied: sweep=confirm takes it from"),
        (("search=.", "model.dim=8,16"), "model.dim cannot be varied: sweep=confirm varies"),
    ],
)
def test_what_cannot_be_confirmed_is_one_line(script, given, line):
    done = script("train", "-m", "sweep=confirm", *given)
    assert done.returncode == 1 and line in done.stderr


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("+search.optimizer.lrr=[1,2]",), "unknown setting search.optimizer.lrr (did you mean"),
        (("seed=0,1",), "seed cannot be varied: trials have one seed"),
        (("budget=0",), "budget must be greater than or equal to 1"),
        (("search=sahred",), "search=sahred: no such option (did you mean shared?)"),
        (("sampler=grid", "search=dat", "variant=dat", "budget=28"), "has 27 points, fewer than"),
        (("callbacks.best=null",), "callbacks."),
        (("test=true",), "test=true: trials are not tested"),
        (("budget=null",), "budget=null: a search needs a number of trials"),
        (
            ("+search.model.augment_gradient=[both,foo]",),
            "search.model.augment_gradient: dat does not take model.augment_gradient='foo': model.",
        ),
        (("+search.model.dim={low: 8, high: 64}",), "search.model.dim: dat does not take model."),
        (("+search.model.history=[mean,gru]",), "search.model.history: a config group cannot be"),
        (("variant=dat,dat",), "variant=dat and variant=dat are the same run: leave out one"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(script, given, line):
    done = script("train", *SEARCH, *given, "dry=true")
    assert done.returncode == 1 and line in done.stderr and done.stderr.count("\n") == 1
    assert not (script.folder / "outputs").exists()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("budget=3", "search.optimizer.lr.high=0.5"), "the search in this folder has dat with"),
        (("budget=3", "pruner=hyperband"), "the search in this folder has dat with other"),
        (("budget=2",), "budget=2: dat in search-synthetic has 3 trials already: give budget=3"),
        (("budget=2", "variant=two_tower_cal"), "budget=2: dat in search-synthetic has 3 trials"),
    ],
)
@pytest.mark.parametrize("dry", ["true", "false"])
def test_another_search_does_not_mix_with_the_one_in_its_folder(whole, given, line, dry):
    script, _ = whole
    files = [folder_of(script) / name for name in ("multirun.yaml", "search.yaml", "journal.log")]
    before = [file.read_bytes() for file in files]
    done = script("train", *SEARCH, *PRUNED, *given, f"dry={dry}")
    assert done.returncode == 1 and line in done.stderr
    assert [file.read_bytes() for file in files] == before


def test_values_that_do_not_fit_one_another_are_a_failed_trial(script, monkeypatch):
    run_of = Search._run_of

    def refused(self, one, trial):
        if trial.number in (1, 2):
            raise UserError("dim and heads do not fit")
        return run_of(self, one, trial)

    monkeypatch.setattr(Search, "_run_of", refused)
    for num_starts in (2, 0):
        given = ("variant=dat", "budget=4", "pruner=none", "trials_at_once=1")
        done = script("train", *SEARCH, *given)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": starts") == num_starts
        assert "dat 1 failed: dim and heads do not fit" in done.stdout
    rows = trials(folder_of(script))
    assert [row["state"] for row in rows] == ["complete", "failed", "failed", "complete"]


def test_the_next_command_is_shown_once_it_would_work(tmp_path, capsys):
    def shown(**states):
        known = {
            label: [Trial(0, {}, None, Outcome(state, 0.1) if state else None) for state in own]
            for label, own in states.items()
        }
        search = SimpleNamespace(
            folder=tmp_path, monitor="val/ndcg@10", mode="max", trials=lambda: known
        )
        search.config = SimpleNamespace(budget=2)
        print_search_outcome(search)
        return capsys.readouterr().out.strip().splitlines()[-1]

    done = ("complete", "pruned")
    assert "-m sweep=confirm search=" in shown(dat=done, two_tower=("failed", "complete"))
    line = shown(dat=done, two_tower=("complete", None), mf=("failed", "pruned"))
    assert line == (
        "sweep=confirm needs more trials: two_tower has 1 of 2: search it with budget=2; none of "
        "mf is complete: search it with a larger budget"
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("seed=1",), "two_tower_cal would be searched with seed=1, and dat in search-synthetic"),
        (("trainer.max_epochs=3",), "with trainer.max_epochs=3, and dat in search-synthetic has"),
        (("search.optimizer.lr.high=0.5",), "optimizer.lr is searched in 0.0003 to 0.01, log for"),
    ],
)
def test_a_variant_that_would_be_searched_otherwise_does_not_join(whole, given, line):
    script, _ = whole
    joining = ("variant=two_tower_cal", *PRUNED, "budget=3", *given)
    done = script("train", *SEARCH, *joining)
    assert done.returncode == 1 and line in done.stderr
    about = yaml.safe_load((folder_of(script) / "search.yaml").read_text())
    assert list(about["space"]) == ["dat", "two_tower"]


@pytest.mark.parametrize(("budget", "finish_with"), [(2, 3), (4, 4)])
def test_a_budget_that_not_all_have_spent_is_not_confirmed(whole, tmp_path, budget, finish_with):
    folder = folder_of(whole[0])
    shutil.copy(folder / "trials.csv", tmp_path)
    about = yaml.safe_load((folder / "search.yaml").read_text())
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({**about, "budget": budget}))
    line = f"has 3 ended trials and the budget is {budget}: .* and budget={finish_with}"
    with pytest.raises(UserError, match=line):
        confirming_jobs(str(tmp_path), tmp_path / "confirmed", 1, [])


def test_a_plan_shows_variants_budget_and_space(script):
    plan = script("train", *SEARCH, "dry=true").stdout
    assert "48 trials, val/ndcg@10, tpe, successive_halving, 1 of a variant at a time" in plan
    assert "two_tower: not of its space" in plan and "0.0003 to 0.01, log" in plan
    fixed = script("train", *SEARCH, "model.dropout=0.1", "dry=true").stdout
    (row,) = [line for line in fixed.splitlines() if "model.dropout" in line]
    assert "dat: given by the command" in row


def test_trials_that_all_fail_cost_no_budget(script):
    done = script("train", *SEARCH, "budget=2", "data.k_core=1000")
    assert done.returncode == 1 and "every trial has failed, the first one: no inter" in done.stderr
    assert {row["state"] for row in trials(folder_of(script))} == {"failed"}
    assert {row["number"] for row in trials(folder_of(script))} == {"0"}


def test_trials_of_one_shape_are_one_pass(script, monkeypatch):
    groups, together = [], lockstep.run_together

    def run_together(jobs, num_runs):
        groups.append(len(jobs))
        together(jobs, num_runs)

    monkeypatch.setattr(lockstep, "run_together", run_together)
    given = ("variant=dat", "budget=3", "trials_at_once=2", "hydra/launcher=fused", "pruner=none")
    done = script("train", *SEARCH, *given)
    assert done.returncode == 0, done.stderr
    assert groups == [2]  # the third is alone
    rows = trials(folder_of(script))
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert len({row["model.dropout"] for row in rows}) == 2  # one for each batch
    assert len({row["optimizer.lr"] for row in rows}) == 3


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_with_the_same_trials(whole, script):
    command = (*SEARCH, *PRUNED, "budget=3")
    folder = folder_of(script)
    for name in ("dat-001", "two_tower-002"):
        process = script.popen("train", *command)
        wait_until(RunFolder(folder / name).mark.exists, process)
        time.sleep(0.2)
        process.kill()
        finish(process)
    process = script.popen("train", *command)
    _, err = finish(process)
    assert process.returncode == 0, err
    assert trials(folder) == trials(folder_of(whole[0]))
    for name, record in records(folder).items():  # of resumed ones, too
        assert record["test"] == {} and record["budget"] == 3, name


@pytest.mark.slow
def test_a_search_in_processes_keeps_its_budget(script):
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "pruner=hyperband")
    process = script.popen("train", *SEARCH, *joblib, "budget=3", "sampler=random")
    _, err = finish(process)
    assert process.returncode == 0, err
    assert [row["number"] for row in trials(folder_of(script))] == ["0", "1", "2"] * 2
