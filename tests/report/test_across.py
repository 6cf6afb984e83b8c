"""Differences across data sets: which are found, their means, and what is said of them."""

import numpy as np
import pytest

from tests.helpers.composition import CONF
from tests.helpers.pictures import faults
from tests.report.world import OPTIONS, run_of
from twotower.errors import UserError
from twotower.report.across import ALL, find_contrasts, mean_of, verdict
from twotower.report.across_block import across_block
from twotower.report.contrasts import SAME_DATA, data_labels
from twotower.report.estimate import combine
from twotower.report.section import make_section
from twotower.report.summary import Summary

PLAIN = {"model._target_": "DAT", "model.tower": "mlp"}
STRONG = {"model._target_": "DAT", "model.tower": "residual", "model.history.layers": 2}
LAMBDAS = ("loss.lambda1", "loss.lambda2", "loss.lambda3")
CONTROL = OPTIONS._replace(control="dat_lambda0")


@pytest.fixture
def data(tmp_path):
    """Makes a data set of variants, each with a name, its settings and a value for each seed."""
    (tmp_path / "metrics.json").touch()

    def make(name, variants, options=CONTROL, dose=None, settings=None, overrides=(), **fields):
        runs = []
        for variant, (own, values) in variants.items():
            for seed, value in enumerate(values):
                run = run_of(
                    seed,
                    tmp_path,
                    data=name,
                    settings={**own, **(settings or {})},
                    overrides=[f"variant={variant}", *overrides],
                    test={"ndcg@10": value},
                    interactions_per_user=dose,
                    **{"split_fingerprint": f"f-{name}-{settings}", **fields},
                )
                runs.append(run)
        return make_section(runs, options)

    return make


def weights(base, *lambdas):
    return base | dict(zip(LAMBDAS, lambdas, strict=True))


def family(start, gain, base=PLAIN, prefix=""):
    """DAT and its control, three seeds: differences around ``gain``."""
    zero = [start, 1.1 * start, 0.9 * start]
    full = [(1 + gain + noise) * own for noise, own in zip((0, 0.002, -0.002), zero, strict=True)]
    return {
        f"{prefix}dat_lambda0": (weights(base, 0, 0, 0), zero),
        f"{prefix}dat": (weights(base, 0.5, 0.5, 1), full),
    }


def both(start, gain, other):
    return family(start, gain) | family(2 * start, other, STRONG, "sasrec_")


def test_each_variant_is_compared_with_the_control_of_its_base(data):
    sections = [data("beauty", both(0.1, 0.05, 0.02)), data("sports", both(0.05, 0.04, 0.01))]
    (contrast,) = find_contrasts(sections, CONTROL)
    assert contrast.name == "dat − dat_lambda0"
    rows = [(row.data, row.one.label, row.other.label) for row in contrast.rows]
    assert rows == [
        ("beauty", "dat", "dat_lambda0"),
        ("beauty", "sasrec_dat", "sasrec_dat_lambda0"),
        ("sports", "dat", "dat_lambda0"),
        ("sports", "sasrec_dat", "sasrec_dat_lambda0"),
    ]
    gains = [row.estimate.value for row in contrast.rows]
    assert gains == pytest.approx([0.05, 0.02, 0.04, 0.01], abs=1e-3)
    assert list(contrast.means) == ["dat_lambda0", "sasrec_dat_lambda0", ALL]
    assert [mean.num_data for mean in contrast.means.values()] == [2, 2, 2]
    # bases of one data set count together: .035 and .025
    assert contrast.means[ALL].value == pytest.approx(0.03, abs=1e-3)
    # their half distance .005 is the error, t with 1 degree 12.7062
    assert contrast.means[ALL].error == pytest.approx(0.005, abs=3e-4)


def test_bases_that_share_users_do_not_narrow_the_interval(data):
    """Data sets differ in what a part does, for both bases alike, and these share the users."""
    sections = [data(name, both(0.1, 0.0, 0.0)) for name in "abc"]
    (contrast,) = find_contrasts(sections, CONTROL)
    generator = np.random.default_rng(14)
    covered = equivalent = 0
    for _ in range(500):
        rows, truth = [], 0.01
        for pair in batched(contrast.rows):
            shared = truth + 0.02 * generator.normal() + 0.1 * generator.normal(size=100)
            for row in pair:
                table = shared + 0.01 * generator.normal(size=(3, 1))
                table = table + 0.05 * generator.normal(size=(3, 100))
                means = table.mean(1)
                own = combine(float(means.mean()), 0.0, [means], [table])
                rows.append(row._replace(estimate=own))
        mean = mean_of(rows, CONTROL)
        covered += mean.low <= truth <= mean.high
        equivalent += verdict(mean, 1, CONTROL).startswith("equivalent")
    # three standard deviations of 500 trials are .03; counted as six data sets .81 are covered
    assert covered >= 460, covered
    assert equivalent <= 40, equivalent


def batched(rows):
    return [rows[place : place + 2] for place in range(0, len(rows), 2)]


def test_tuned_variants_keep_their_contrast(data):
    """Settings that a search chose for each data set alone are no other difference."""

    def tuned(rate):
        found = family(0.1, 0.02)
        own, values = found["dat"]
        return found | {"dat": ({**own, "optimizer.lr": rate}, values)}

    sections = [data("beauty", tuned(0.1)), data("sports", tuned(0.2)), data("toys", tuned(0.3))]
    (contrast,) = find_contrasts(sections, CONTROL)
    assert contrast.name == "dat − dat_lambda0" and contrast.means[ALL].num_data == 3


def test_without_a_control_parts_that_several_data_sets_have_are_compared(data):
    amm = {"dat_amm": (weights(PLAIN, 0.5, 0.5, 0), [0.1, 0.12, 0.11])}
    options = OPTIONS
    sections = [
        data("beauty", family(0.1, 0.02) | amm, options),
        data("sports", family(0.1, 0.02) | amm, options),
        data("toys", family(0.1, 0.02), options),  # no pair differs in one part
    ]
    found = find_contrasts(sections, options)
    assert [own.name for own in found] == ["λ3: 0 → 1", "λ1 = λ2: 0 → 0.5"]
    assert [row.data for row in found[0].rows] == ["beauty", "sports"]
    assert find_contrasts(sections[:1], options) == []
    assert across_block([], options) is None


def test_a_part_on_two_bases_of_one_data_set_is_compared(data):
    def bases(other):
        found = {}
        for name, base in (("a", PLAIN), ("b", other)):
            found[f"{name}0"] = (weights(base, 0, 0, 0), [0.1, 0.12, 0.11])
            found[f"{name}1"] = (weights(base, 0, 0, 1), [0.1, 0.121, 0.111])
        return data("beauty", found, OPTIONS)

    (contrast,) = find_contrasts([bases(STRONG)], OPTIONS)
    assert contrast.name == "λ3: 0 → 1" and contrast.means[ALL].num_data == 1
    assert [row.base for row in contrast.rows] == ["a0", "b0"]
    # a grid of loss weights is on one base
    assert find_contrasts([bases({**PLAIN, "loss.gamma": 1})], OPTIONS) == []


def test_versions_of_one_data_set_are_no_other_data(data):
    doses = [
        data("ml", family(0.1, 0.02), settings={"data.max_per_user": dose}) for dose in (5, 10)
    ]
    sections = [*doses, data("ml", family(0.1, 0.02)), data("beauty", family(0.1, 0.06))]
    labels = ["ml max_per_user=5", "ml max_per_user=10", "ml", "beauty"]
    assert data_labels(sections) == labels
    (contrast,) = find_contrasts(sections, CONTROL)
    assert contrast.means[ALL].num_data == 2
    assert contrast.means[ALL].value == pytest.approx(0.04, abs=1e-3)
    # a thinned version counts where the whole data set is not there
    thin = [data("ml", family(0.1, 0.1), settings={"data.max_per_user": 5})]
    (contrast,) = find_contrasts([*thin, *sections[2:]], CONTROL)
    assert contrast.means[ALL].value == pytest.approx(0.04, abs=1e-3)
    (answer,) = across_block(find_contrasts([*thin, sections[2]], CONTROL), CONTROL).answers
    assert answer.lead.endswith("+2.0 %") and "rows" not in answer.rest
    (contrast,) = find_contrasts([*thin, sections[3]], CONTROL)
    assert contrast.means[ALL].value == pytest.approx(0.08, abs=1e-3)
    tables = [
        data(
            "table",
            family(0.1, 0.02),
            overrides=[f"data.reader.path={path}"],
            split_fingerprint=path,
        )
        for path in ("aaaaaaaa", "bbbbbbbb")
    ]
    assert data_labels(tables) == ["table aaaaaa", "table bbbbbb"]
    assert find_contrasts(tables, CONTROL)[0].means[ALL].num_data == 2


def test_files_of_the_same_interactions_are_no_other_data(data):
    sections = [data(name, family(0.1, 0.02)) for name in ("amazon_beauty", "s3rec_beauty")]
    assert find_contrasts(sections, CONTROL)[0].means[ALL].num_data == 1
    names = {path.stem for path in (CONF / "data").glob("*.yaml")}
    assert names >= {*SAME_DATA, *SAME_DATA.values()}


def test_one_data_set_says_nothing_of_others(data):
    contrasts = find_contrasts([data("beauty", family(0.1, 0.02))], CONTROL)
    (answer,) = across_block(contrasts, CONTROL).answers
    # relative differences .02 .022 .018 of .1 .11 .09, so +2.01 %; error over seeds: of
    # x - ratio * y in units of .1: -.00007 .00213 -.00187, sd .002, error .00116; t 4.303
    assert f"{answer.lead}{answer.rest}" == (
        "dat − dat_lambda0 is better on NDCG@10: +2.0 %, 95 % interval +1.5 % to +2.5 %; one data "
        "set, so nothing is known of others."
    )


def test_sentences_of_two_and_three_data_sets(data):
    sections = [
        data(name, family(0.1, gain), dose=dose)
        for name, gain, dose in (("a", 0.02, 10), ("b", 0.03, 100), ("c", 0.07, 1000))
    ]
    (answer,) = across_block(find_contrasts(sections[:2], CONTROL), CONTROL).answers
    assert answer.lead == "dat − dat_lambda0 is not decided on NDCG@10: +2.5 %"
    # values .0201 and .0301; ± 12.706 * .005
    assert answer.rest == (
        ", the mean of 2 data sets, 95 % interval −3.8 % to +8.9 %; two data sets have one degree "
        "of freedom, so the interval is wide; by data and base 2 better."
    )
    (answer,) = across_block(find_contrasts(sections, CONTROL), CONTROL).answers
    # .02 .03 .07: mean .04, sd .02646, error .01528, t 4.303; predicted with one degree:
    # 12.706 * √(.02644² + .01528²)
    assert "the mean of 3 data sets, 95 % interval −2.6 % to +10.6 %" in answer.rest
    assert "standard deviation of 2.6 % (I² 100 %), and in another one −34.8 % to" in answer.rest
    # slope (.07 - .02) / 2 for ten times as many
    assert "interactions per user it changes by +2.5 % (" in answer.rest


def test_equivalence_comes_before_better(data):
    mean = Summary(0.004, 0.001, 5, 6, 0, 0, 0.0015, 0.0065, 0.01, None)
    assert verdict(mean, 0.01, CONTROL) == "equivalent within ±1 %"
    assert verdict(mean, 0.01, CONTROL._replace(margin=0.005)) == "better"
    assert verdict(mean, 0.06, CONTROL._replace(margin=0.005)) == "not decided"
    assert verdict(mean._replace(value=-0.02), 0.01, CONTROL) == "worse"


def test_a_row_of_one_seed_is_shown_and_does_not_count(data):
    one = {name: (own, values[:1]) for name, (own, values) in family(0.1, 0.5).items()}
    sections = [data("a", family(0.1, 0.02)), data("b", one)]
    contrasts = find_contrasts(sections, CONTROL)
    assert contrasts[0].means[ALL].num_data == 1
    block = across_block(contrasts, CONTROL)
    cells = [line.cells[:3] for line in block.tables["dat − dat_lambda0"].lines]
    assert cells[1] == ["b\ndat − dat_lambda0", "+50.0 %", "one seed"]
    (contrast,) = find_contrasts(sections[1:], CONTROL)
    assert contrast.means == {} and contrast.p is None
    (answer,) = across_block([contrast], CONTROL).answers
    assert answer.lead == "dat − dat_lambda0: no error is known"


def test_a_control_of_zero_is_named_and_does_not_count(data):
    """Three seeds on each side: what is missing is no seed, but a number to divide by."""
    zero = family(0.1, 0.5)
    zero["dat_lambda0"] = (zero["dat_lambda0"][0], [0.0, 0.0, 0.0])
    one = {name: (own, values[:1]) for name, (own, values) in family(0.1, 0.5).items()}
    sections = [data("a", zero), data("b", one), data("c", family(0.1, 0.02))]
    name = "dat − dat_lambda0"

    def block_of(*places):
        found = find_contrasts([sections[place] for place in places], CONTROL)
        return across_block(found, CONTROL)

    (answer,) = block_of(0).answers
    assert answer.lead == f"{name}: no relative difference exists"
    assert answer.rest == ", as the mean of each control is 0."
    (answer,) = block_of(0, 1).answers
    assert answer.lead == f"{name}: no error is known"
    assert answer.rest == ", as each has one seed on a side or a control with the mean 0."
    cells = [line.cells for line in block_of(0, 1, 2).tables[name].lines]
    assert [own[:3] for own in cells[:2]] == [
        [f"a\n{name}", "", "control is 0"],
        [f"b\n{name}", "+50.0 %", "one seed"],
    ]
    assert cells[0][3] == "+.1500"  # the mean of dat
    sections.append(data("d", family(0.1, 0.02)))
    (answer,) = block_of(0, 1, 2, 3).answers
    assert ", 1 with a control of 0, 1 of one seed" in answer.rest


def test_p_of_means_is_corrected_over_the_contrasts(data):
    amm = {"dat_amm": (weights(PLAIN, 0.5, 0.5, 0), [0.102, 0.113, 0.091])}
    sections = [data(name, family(0.1, 0.02) | amm) for name in "abc"]
    found = find_contrasts(sections, CONTROL)
    alone = [own.means[ALL].p for own in found]
    assert len(found) == 2
    assert sorted(own.p for own in found)[0] == pytest.approx(min(1, 2 * min(alone)))


def test_a_control_may_be_a_part_of_a_label(data):
    def values(name, gain):
        runs = {"dat": (weights(PLAIN, 0, 0, 1), [gain * own for own in (0.1, 0.12, 0.11)])}
        zero = {"zero": (weights(PLAIN, 0, 0, 0), [0.1, 0.12, 0.11])}
        return data(name, runs | zero)

    sections = [values("a", 1.1), values("b", 1.2)]
    (contrast,) = find_contrasts(sections, OPTIONS._replace(control="er"))
    assert contrast.name == "dat − er"
    gains = [row.estimate.value for row in contrast.rows]
    assert gains == pytest.approx([0.1, 0.2])


def test_a_control_that_no_data_set_has(data):
    sections = [data("a", family(0.1, 0.02))]
    with pytest.raises(UserError, match="control=mind names no variant .*: dat; dat_lambda0"):
        find_contrasts(sections, OPTIONS._replace(control="mind"))


def test_slope_by_interactions_per_user_needs_three_doses(data):
    sections = [data(f"d{dose}", both(0.1, 0.02, 0.03), dose=dose) for dose in (5, 50)]
    assert find_contrasts(sections, CONTROL)[0].line is None
    sections.append(data("d500", both(0.1, 0.02, 0.03), dose=500))
    line = find_contrasts(sections, CONTROL)[0].line
    assert line.num_data == 3  # two bases of a data set are one point
    assert line.slope == pytest.approx(0, abs=1e-9)


def test_doses_of_one_data_set_are_no_points_beside_other_data(data):
    """Two dense and two sparse sources that differ by chance say nothing on the dose."""
    generator = np.random.default_rng(3)
    found = 0
    for _ in range(60):
        sections = []
        for name, doses in (("ml", (60, 90, 160)), ("beauty", (3, 5, 8))):
            gain = 0.05 * generator.normal()
            for dose in doses:
                own = family(0.1, gain + 0.02 * generator.normal())
                limit = {"data.max_per_user": dose}
                sections.append(data(name, own, dose=dose, settings=limit))
        line = find_contrasts(sections, CONTROL)[0].line
        assert line.num_data == 6 and line.is_within and line.freedom == 3
        found += line.p < 0.05
    assert found <= 8, found  # 3 ± 3 * 1.7; with one height for both data sets some 30


def test_a_slope_is_within_thinned_data_sets_if_there_are_any(data):
    doses = [
        data(
            "ml",
            family(0.1, 0.02 * np.log10(dose)),
            dose=dose,
            settings={"data.max_per_user": dose},
        )
        for dose in (5, 50, 500)
    ]
    others = [data(name, family(0.1, -0.05), dose=7) for name in ("beauty", "sports")]
    (alone,) = across_block(find_contrasts(doses, CONTROL), CONTROL).answers
    assert "nothing is known of others; within thinned data sets with ten times" in alone.rest
    (contrast,) = find_contrasts([*doses, *others], CONTROL)
    assert contrast.line.is_within and contrast.line.num_data == 3
    assert contrast.line.slope == pytest.approx(0.02, abs=1e-4)
    said = across_block([contrast], CONTROL).answers[0].rest
    assert (
        "within thinned data sets with ten times as many interactions per user it changes by"
        in said
    )
    # two doses have no error of their own: the data set is one point among others
    (contrast,) = find_contrasts([*doses[:2], *others], CONTROL)
    assert contrast.line is None


@pytest.mark.parametrize("num_data", [1, 2, 4])
def test_plots_are_readable_and_have_a_text(data, num_data):
    sections = [
        data(f"a data set of a long name {place}", both(0.1, 0.02 * place, -0.01), dose=5.0**place)
        for place in range(1, num_data + 1)
    ]
    block = across_block(find_contrasts(sections, CONTROL), CONTROL)
    assert [plot.name for plot in block.plots] == ["forest-1", "dose-1"][: 1 + (num_data > 1)]
    for plot in block.plots:
        assert faults(plot.draw()) == [], plot.name
        assert "dat − dat_lambda0" in plot.alt and plot.alt.endswith(".")
