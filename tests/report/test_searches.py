"""Searches: their trials, the best expected of fewer trials, and what is said of it."""

import numpy as np
import pytest

from tests.helpers.pictures import faults
from tests.report.world import OPTIONS
from twotower.report.budget import chance_above, curves_of, expected_best, rankings
from twotower.report.search_block import search_block
from twotower.report.searches import find_searches, read_search

ABOUT = "metric: val/ndcg@10\nmode: {mode}\nsampler: {sampler}\ndata: toy\nspace: {{a: {{}}}}\n"
HEAD = "variant,number,state,value,epochs,seconds,optimizer.lr\n"


@pytest.fixture
def search(tmp_path):
    """Writes a search: for each variant its trials as values, or a state and a value."""

    def write(variants, mode="max", sampler="random", folder="search"):
        rows = []
        for variant, trials in variants.items():
            for place, trial in enumerate(trials):
                state, value = trial if isinstance(trial, tuple) else ("complete", trial)
                rows.append(f"{variant},{place},{state},{value},3,10.5,0.1\n")
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "search.yaml").write_text(ABOUT.format(mode=mode, sampler=sampler))
        (tmp_path / folder / "trials.csv").write_text(HEAD + "".join(rows))
        return tmp_path / folder

    return write


def test_the_expected_best_by_hand():
    # of 1 2 3: one draw 2 ± √(2/3); two draws: 1 in 1/9, 2 in 3/9, 3 in 5/9 of cases: 22/9,
    # squares 1/9 + 12/9 + 45/9 = 58/9, variance 58/9 - 484/81 = 38/81; three: 1/27, 7/27, 19/27
    mean, spread = expected_best(np.array([3.0, 1.0, 2.0]))
    assert mean == pytest.approx([2, 22 / 9, 72 / 27])
    variances = [2 / 3, 38 / 81, (1 + 28 + 171) / 27 - (72 / 27) ** 2]
    assert spread**2 == pytest.approx(variances)
    mean, spread = expected_best(np.array([0.5]))
    assert (mean.tolist(), spread.tolist()) == ([0.5], [0])


def test_the_expected_best_is_that_of_draws():
    generator = np.random.default_rng(3)
    values = generator.normal(size=7)
    mean, spread = expected_best(values)
    for budget in (1, 3, 7):
        best = generator.choice(values, (40_000, budget)).max(1)
        # a standard error of 1 / √40,000 = .005
        assert best.mean() == pytest.approx(mean[budget - 1], abs=0.02)
        assert best.std() == pytest.approx(spread[budget - 1], abs=0.02)


def test_the_expected_best_of_new_trials_is_estimated_while_they_are_few():
    """The mean largest of 2 and 4 normal values is .5642 and 1.0294."""
    generator = np.random.default_rng(4)
    means = np.mean([expected_best(generator.normal(size=24))[0] for _ in range(2000)], 0)
    assert means[[0, 1, 3]] == pytest.approx([0, 0.5642, 1.0294], abs=0.08)
    # of 24 it is 1.9477: too low with all trials
    assert means[23] < 1.85


def test_the_chance_of_a_better_best():
    # one draw of 1 3 against 2: half; two draws: 3 in 3 of 4 cases
    one, other = np.array([3.0, 1.0]), np.array([2.0])
    assert chance_above(one, other, 1) == pytest.approx(0.5)
    assert chance_above(one, other, 2) == pytest.approx(0.75)
    assert chance_above(other, one, 2) == pytest.approx(0.25)
    assert chance_above(one, one, 2) == pytest.approx(0.5)  # equal ones count half
    generator = np.random.default_rng(5)
    one, other = generator.integers(0, 6, (2, 9)).astype(float)
    drawn = [generator.choice(values, (40_000, 3)).max(1) for values in (one, other)]
    share = (drawn[0] > drawn[1]).mean() + (drawn[0] == drawn[1]).mean() / 2
    assert chance_above(one, other, 3) == pytest.approx(share, abs=0.01)


def test_pruned_trials_count_with_their_best_and_failed_ones_as_the_worst(search):
    trials = [("pruned", 0.05), 0.2, ("failed", ""), ("running", ""), ("running", 0.9)]
    found = read_search(search({"dat": trials, "mf": [0.1, 0.02]}))
    dat, mf = found.variants
    assert (dat.variant, dat.values.tolist()) == ("dat", [0.05, 0.2, 0.02])
    assert dat.states == ["pruned", "complete", "failed"]
    assert dat.seconds == pytest.approx(31.5)
    assert mf.values.tolist() == [0.1, 0.02]
    assert found.num_trials == 2 and found.about.metric == "val/ndcg@10"


def test_a_small_value_may_be_the_better(search):
    found = read_search(search({"dat": [3, 1, ("failed", 7)]}, mode="min"))
    (curve,) = curves_of(found)
    # 3 1 3: the smallest of two draws is 3 in 4 of 9 cases
    assert curve.best[:2] == pytest.approx([7 / 3, 17 / 9])
    assert curve.so_far.tolist() == [3, 1, 1]


def test_a_search_without_a_finished_trial(search):
    found = read_search(search({"dat": [("failed", ""), ("running", "")]}))
    assert found == ("search", "no trial of this search has finished")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trials.csv", "variant,number\na,0\n"),
        ("trials.csv", f"{HEAD}dat,0,complete,x,3,1,1\n"),
        ("search.yaml", "mode: max\n"),
        ("search.yaml", "[\n"),
    ],
)
def test_damaged_files_are_named(search, name, text):
    folder = search({"dat": [0.1]})
    (folder / name).write_text(text)
    found = read_search(folder)
    assert found.name == "search"
    assert found.reason.startswith("damaged: trials.csv or search.yaml cannot be used (")


def test_searches_are_found_below_a_folder_and_by_a_glob(search, tmp_path):
    one, other = search({"dat": [0.1]}), search({"dat": [0.1]}, folder="second")
    (tmp_path / "none").mkdir()
    assert find_searches([str(tmp_path)]) == [one, other]
    assert find_searches([f"{tmp_path}/s*", str(one)]) == [one, other]
    assert find_searches([str(tmp_path / "none")]) == []


def said(found, **options):
    block = search_block(found, 1, OPTIONS._replace(**options))
    return [f"{own.lead}{own.rest}" for own in block.answers]


def test_a_ranking_that_depends_on_the_budget(search):
    """One variant is steady, the other is mostly worse and sometimes better."""
    steady, wild = [0.10, 0.10, 0.10, 0.10], [0.01, 0.01, 0.01, 0.2]
    found = read_search(search({"wild": wild, "steady": steady}))
    # wild: .0575; with two draws .01 + .19 * 7 / 16 = .093; with three .01 + .19 * 37 / 64 = .12
    first, second = rankings(found, curves_of(found))
    assert first == (1, 2, ["steady", "wild"]) and second == (3, 4, ["wild", "steady"])
    # four draws: .2 in 1 - .75^4 of cases
    assert said(found) == [
        "The ranking depends on the budget: with 1 to 2 steady > wild; with 3 to 4 wild > steady; "
        "with 4 wild is above steady in 68 % of draws, so another search could turn the two around."
    ]


def test_a_ranking_that_stays(search):
    found = read_search(search({"worse": [0.1, 0.2], "better": [0.3, 0.4, 0.5]}))
    assert said(found) == [
        "The ranking is the same with 1 to 2 trials: better first; with 2 better is above worse in "
        "100 % of draws.",
        "The budgets differ: worse 2, better 3 trials; compared up to 2 trials.",
    ]
    alone = read_search(search({"dat": [0.1, 0.3]}, folder="alone"))
    assert said(alone) == ["dat reaches val/ndcg@10 .2500 with 2 trials."]


def test_the_table_and_the_words(search):
    found = read_search(search({"dat": [0.1, 0.3, ("pruned", 0.2)]}, sampler="tpe"))
    block = search_block(found, 2, OPTIONS)
    assert block.name == "search-2" and block.title == "Search search (toy, tpe)"
    (grid,) = block.tables.values()
    assert grid.heading == ["variant", "1", "2", "3", "trials", "pruned", "failed", "time"]
    assert grid.lines[0].cells[:2] == ["dat", ".2000 ± .0816"]
    assert grid.lines[0].cells[4:] == ["3", "1", "0", "32 s"]
    assert block.words["order of the trials"].startswith("tpe learns from earlier trials")
    assert [row["expected best"] for row in block.rows] == pytest.approx(
        [0.2, 0.7333 / 3, 0.8 / 3], abs=1e-4
    )
    plain = search_block(read_search(search({"dat": [0.1]}, folder="plain")), 1, OPTIONS)
    assert "order of the trials" not in plain.words


@pytest.mark.parametrize("num_variants", [1, 3, 8])
def test_the_plot_is_readable(search, num_variants):
    generator = np.random.default_rng(6)
    variants = {
        f"tuned_variant_of_a_long_name_{place}": generator.normal(0.1, 0.01, 12).tolist()
        for place in range(num_variants)
    }
    (plot,) = search_block(read_search(search(variants)), 1, OPTIONS).plots
    assert faults(plot.draw()) == []
    assert plot.alt.startswith("Expected best val/ndcg@10 by number of trials")
