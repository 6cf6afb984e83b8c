"""What is confirmed of a search: which trial wins, and what is refused."""

import json

import pytest
import yaml

from tests.sweep.written import OVERRIDES, write_search
from twotower.errors import UserError
from twotower.run.run_folder import RunFolder
from twotower.sweep.confirm import confirming_jobs
from twotower.sweep.trials import Outcome, Trial, best_of, outcome_of, read_ended


def confirm(folder, seeds=1, given=()):
    return confirming_jobs(str(folder), folder / "confirmed", seeds, list(given))


def test_every_seed_has_the_best_trial_of_each_variant(tmp_path):
    write_search(tmp_path)
    jobs = confirm(tmp_path, seeds=2, given=["trainer.max_epochs=3"])
    assert [job[-1] for job in jobs] == ["trainer.max_epochs=3"] * 4
    assert [set(job[:-1]) for job in jobs] == [
        {*OVERRIDES[label], "budget=2", f"optimizer.lr={lr}", f"seed={seed}"}
        for seed in (6, 7)
        for label, lr in (("dat", 0.2), ("mf", 0.1))
    ]


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_search_that_went_on_is_not_confirmed_in_the_same_folder(tmp_path, is_finished):
    write_search(tmp_path)
    (job, _) = confirm(tmp_path)
    run = RunFolder(tmp_path / "confirmed" / "run")
    run.config.parent.mkdir(parents=True)
    if is_finished:
        run.record.write_text(json.dumps({"overrides": job}))
    run.config.with_name("overrides.yaml").write_text(yaml.safe_dump(job))
    assert confirm(tmp_path, seeds=2)[0] == job  # goes on
    write_search(tmp_path, budget=3)
    line = r"confirmed confirms the search as it was with budget=2, and now it has budget=3: give "
    with pytest.raises(UserError, match=rf"{line}hydra.sweep.dir=\S+confirmed-3, or move"):
        confirm(tmp_path)
    # another search with the same number of trials
    write_search(tmp_path, best=0.3)
    with pytest.raises(UserError, match="as it was with optimizer.lr=0.2, and now it has .*=0.3"):
        confirm(tmp_path)
    # of other data: the folder may have both
    write_search(tmp_path, budget=3, data="movielens_1m")
    assert len(confirm(tmp_path)) == 2


@pytest.mark.parametrize("seeds", [0, -1, 0.5, True, None, "two"])
def test_seeds_are_a_whole_number(tmp_path, seeds):
    write_search(tmp_path)
    with pytest.raises(
        UserError, match=f"^seeds must be a whole number of 1 or more, got {seeds!r}"
    ):
        confirm(tmp_path, seeds)


def assert_refused_with(path, old, new, line):
    """Change a file of the search; what is said of it is one line."""
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=line) as caught:
        confirm(path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "complete,0.5,",
            "complete,,",
            "trial 1 of dat in trials.csv is complete with the value ''",
        ),
        ("complete,0.5,2,1.0,0.2", "complete", "line 3 of trials.csv has too few or too many"),
        ("complete,0.5,2,1.0,0.2", "complete,0.5,2,1.0,0.2,7", "line 3 of trials.csv has too few"),
        ("optimizer.lr", "optimizer.l", "trials.csv has no column optimizer.lr"),
        ("variant,", "variants,", "trials.csv has no trials"),
        ("complete,0.5", "compl,0.5", "dat has 1 ended trials and the budget is 2"),
    ],
)
def test_a_damaged_list_of_trials_is_one_line(tmp_path, old, new, line):
    write_search(tmp_path)
    assert_refused_with(tmp_path / "trials.csv", old, new, line)
    read_ended(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("budget: 2", "budget: three", "search.yaml.budget: Input should be .* got 'three'"),
        ("  mf:\n    optimizer.lr", "  mff:\n    optimizer.lr", "search.yaml has no space of mf"),
        ("mode", "- mode", "its files cannot be read"),
    ],
)
def test_a_damaged_search_yaml_is_one_line(tmp_path, old, new, line):
    write_search(tmp_path)
    assert_refused_with(tmp_path / "search.yaml", old, new, line)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_only_finite_values_win(tmp_path, value):
    write_search(tmp_path)
    path = tmp_path / "trials.csv"
    path.write_text(path.read_text().replace("dat,0,complete,0.4", f"dat,0,complete,{value}"))
    assert "optimizer.lr=0.2" in confirm(tmp_path)[0]
    path.write_text(path.read_text().replace("0.5", value))
    with pytest.raises(UserError, match="no trial of dat is complete"):
        confirm(tmp_path)
    trials = [
        Trial(number, {}, None, Outcome("complete", one))
        for number, one in enumerate((float(value), 0.1))
    ]
    best = best_of(trials, "max")
    assert best is not None and best.number == 1
    assert best_of(trials[:1], "max") is None


def test_a_trial_without_a_finite_metric_has_failed(tmp_path):
    record = {"val": {"ndcg@10": float("nan")}, "epochs": 2, "wall_seconds": 1.0}
    RunFolder(tmp_path).record.write_text(json.dumps(record))
    outcome = outcome_of(RunFolder(tmp_path), "val/ndcg@10")
    assert outcome == Outcome("failed", None, 2, 1.0, "val/ndcg@10 is not a finite number")
