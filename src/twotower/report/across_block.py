"""Sentences and tables of the differences across data sets."""

from collections import Counter
from typing import Any

from twotower.report.across import ALL, Contrast, counted, margin_text, verdict
from twotower.report.across_dose import draw_dose
from twotower.report.across_forest import MAX_ROWS, draw_forest
from twotower.report.answer import Answer
from twotower.report.blocks import Block, Plot
from twotower.report.comparison import Options
from twotower.report.contrasts import Row
from twotower.report.estimate import Estimate
from twotower.report.grid import Grid, Line
from twotower.report.statistics import Evidence
from twotower.report.summary import Line as Slope
from twotower.report.summary import Summary, interval, two_sided
from twotower.report.text import MINUS, metric_name, number, p_text, percent

MAX_SHOWN = 8  # contrasts with a sentence, a table and plots
ONE_SEED, ZERO = "one seed", "control is 0"  # why a row has no estimate
SAID = {ONE_SEED: "of one seed", ZERO: "with a control of 0"}
TITLE = "Differences across data sets"
MEAN = (
    "random effects over data sets: weights are inverse variances with τ² of Paule and Mandel, the "
    "interval is that of Hartung, Knapp, Sidik and Jonkman, not narrower than with equal weights; "
    "bases and splits of one data set count once, as their mean, thinned versions only without the "
    "whole data set"
)
VERDICT = (
    "equivalent: two one-sided tests at ALPHA show a true difference within MARGIN; better, worse: "
    "the LEVEL interval is on one side of zero (of the mean after Holm's correction over the "
    "differences); not decided: neither"
)


def across_block(contrasts: list[Contrast], options: Options) -> Block | None:
    """The contrasts of most data sets; all are in the CSV file. None without any."""
    if not contrasts:
        return None
    shown = sorted(contrasts, key=lambda own: -_num_data(own))[:MAX_SHOWN]
    found = [_answer(own, options) for own in shown]
    if len(shown) < len(contrasts):
        found.append(Answer(f"{len(contrasts) - len(shown)} more are in across.csv."))
    plots = []
    for place, own in enumerate(shown, 1):
        if own.means:
            plots.append(_forest(place, own, options))
        if len({row.dose for row in own.rows if row.estimate and row.dose}) > 1:
            plots.append(_dose(place, own, options))
    return Block(
        name="across",
        title=f"{TITLE}: {metric_name(options.metric)}",
        answers=found,
        tables={own.name: _grid(own, options) for own in shown},
        plots=plots,
        words=_words(options),
        rows=[line for own in contrasts for line in _csv(own, options)],
    )


def _num_data(contrast: Contrast) -> int:
    return contrast.means[ALL].num_data if contrast.means else 0


def _answer(contrast: Contrast, options: Options) -> Answer:
    metric = metric_name(options.metric)
    if not contrast.means:
        return _unknown_answer(contrast, options)
    mean = contrast.means[ALL]
    said = verdict(mean, contrast.p or 0, options)
    lead = f"{contrast.name} is {said} on {metric}: {signed(mean.value)}"
    facts = f"{percent(options.level)} interval {to_text(mean.low, mean.high)}"
    if mean.num_data == 1:
        num_rows = len(counted(contrast.rows))
        of = f" (the mean of {num_rows} rows)" if num_rows > 1 else ""
        one = [f"{of}, {facts}", "one data set, so nothing is known of others"]
        return Answer(lead, f"{'; '.join([*one, *_slope(contrast)])}.")
    parts = [f", the mean of {mean.num_data} data sets, {facts}"]
    if mean.num_data == 2:
        parts.append("two data sets have one degree of freedom, so the interval is wide")
    else:
        parts.append(_heterogeneity(mean))
    parts.append(_votes(contrast.rows, options))
    return Answer(lead, f"{'; '.join([*parts, *_slope(contrast)])}.")


def _unknown_answer(contrast: Contrast, options: Options) -> Answer:
    reasons = {_reason(row, options) for row in contrast.rows}
    if reasons == {ZERO}:
        lead, why = "no relative difference exists", "the mean of each control is 0"
    elif reasons == {ONE_SEED}:
        lead, why = "no error is known", "each has one seed on a side"
    else:
        lead, why = "no error is known", "each has one seed on a side or a control with the mean 0"
    return Answer(f"{contrast.name}: {lead}", f", as {why}.")


def _reason(row: Row, options: Options) -> str:
    """Why a row has no estimate."""
    return ONE_SEED if row.other.mean(options.metric) > 0 else ZERO


def _slope(contrast: Contrast) -> list[str]:
    if contrast.line is None:
        return []
    own = contrast.line
    p = p_text(Evidence(own.low, own.high, own.p, own.p))
    return [
        f"{_where(own)} with ten times as many interactions per user it changes by "
        f"{signed(own.slope)} ({to_text(own.low, own.high)}, {p})"
    ]


def _where(slope: Slope) -> str:
    return "within thinned data sets" if slope.is_within else "across data sets"


def _heterogeneity(mean: Summary) -> str:
    assert mean.between is not None and mean.share is not None and mean.predicted is not None
    vary = "the data sets differ no more than by chance"
    if mean.between > 0:
        vary = (
            "true differences vary between data sets with a standard deviation of "
            f"{percent(mean.between, '.1%')} (I² {percent(mean.share)})"
        )
    return f"{vary}, and in another one {to_text(*mean.predicted)} is expected"


def _votes(rows: list[Row], options: Options) -> str:
    counts = Counter(_verdict(row.estimate, options) for row in rows if row.estimate)
    said = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    reasons = Counter(_reason(row, options) for row in rows if row.estimate is None)
    unknown = "".join(f", {count} {SAID[reason]}" for reason, count in reasons.items())
    return f"by data and base {said}{unknown}"


def _verdict(own: Estimate, options: Options) -> str:
    return verdict(own, two_sided(own.value, own.error, own.freedom), options)


def _grid(contrast: Contrast, options: Options) -> Grid:
    metric = metric_name(options.metric)
    heading = ["data and base", f"Δ {metric} in %", "verdict", f"Δ {metric}"]
    heading += ["error over seeds", "error over users", "seeds", "interactions per user"]
    lines = [_line(row, options) for row in contrast.rows]
    for base, mean in contrast.means.items():
        if len(contrast.rows) > 1:
            p = (contrast.p or 0) if base == ALL else mean.p
            said = verdict(mean, p, options)
            name = f"mean of {mean.num_data} data sets" if mean.num_data > 1 else "mean"
            cells = [f"{name}\n{base}", _percent(mean.value, mean.low, mean.high), said]
            lines.append(Line([*cells, *[""] * 5], said in ("better", "worse"), True))
    if contrast.means and (predicted := contrast.means[ALL].predicted):
        lines.append(Line(["another data set", to_text(*predicted), *[""] * 6], False, True))
    return Grid(heading, lines, 1, 3)


def _line(row: Row, options: Options) -> Line:
    name = f"{row.data}\n{row.one.label} {MINUS} {row.other.label}"
    metric, own = options.metric, row.estimate
    absolute = row.one.mean(metric) - row.other.mean(metric)
    seeds = "/".join(dict.fromkeys(str(len(side.seeds)) for side in (row.one, row.other)))
    dose = f"{row.dose:.1f}" if row.dose else ""
    if own is None:
        start = row.other.mean(metric)
        value = signed(absolute / start) if start else ""
        said = _reason(row, options)
        return Line([name, value, said, number(absolute, "+"), "", "", seeds, dose])
    said = _verdict(own, options)
    low, high = interval(own.value, own.error, own.freedom, options.level)
    over_users = "" if own.over_users is None else percent(own.over_users, ".1%")
    cells = [name, _percent(own.value, low, high), said, number(absolute, "+")]
    cells += [percent(own.over_seeds, ".1%"), over_users, seeds, dose]
    return Line(cells, said in ("better", "worse"))


def _percent(value: float, low: float, high: float) -> str:
    return f"{signed(value)}\n{to_text(low, high)}"


def signed(share: float) -> str:
    """``+2.1 %``."""
    return percent(share, "+.1%")


def to_text(low: float, high: float) -> str:
    """``−1.0 % to +2.1 %``."""
    return f"{signed(low)} to {signed(high)}"


def _words(options: Options) -> dict[str, str]:
    level, alpha = percent(options.level), f"{100 * (1 - options.level):.3g} %"
    said = VERDICT.replace("LEVEL", level).replace("ALPHA", alpha)
    return {
        "in %": f"relative to the control, with a {level} interval for other seeds and other users "
        "together",
        "error": "standard error of the difference in %, over seeds for the same users, over users "
        "for the same trained models",
        "mean": MEAN,
        "verdict": said.replace("MARGIN", margin_text(options)),
        "I²": "the part of the spread between data sets that is more than chance",
        "another data set": f"interval for the true difference there, {level}",
    }


def _forest(place: int, contrast: Contrast, options: Options) -> Plot:
    mean = contrast.means[ALL]
    rows = [f"{row.data} {signed(row.estimate.value)}" for row in contrast.rows if row.estimate][
        :MAX_ROWS
    ]
    alt = (
        f"Forest plot of {contrast.name}, Δ test {metric_name(options.metric)} in %, a row for "
        f"each data set and base: {', '.join(rows)}. Mean of {mean.num_data} data sets "
        f"{signed(mean.value)} ({to_text(mean.low, mean.high)})."
    )
    return Plot(f"forest-{place}", lambda: draw_forest(contrast, options), alt)


def _dose(place: int, contrast: Contrast, options: Options) -> Plot:
    slope = "No slope, as fewer than three data sets, or doses of one, differ in it."
    if contrast.line:
        own = contrast.line
        slope = f"Slope {_where(own)} for ten times as many {signed(own.slope)} "
        slope += f"({to_text(own.low, own.high)})."
    alt = (
        f"{contrast.name}: Δ test {metric_name(options.metric)} in % by training interactions per "
        f"user, with {percent(options.level)} intervals. {slope}"
    )
    return Plot(f"dose-{place}", lambda: draw_dose(contrast, options), alt)


def _csv(contrast: Contrast, options: Options) -> list[dict[str, Any]]:
    lines = []
    for row in contrast.rows:
        line: dict[str, Any] = {"difference": contrast.name, "data": row.data, "base": row.base}
        line |= {"variant": row.one.label, "control": row.other.label}
        line |= {"fingerprint": row.section.fingerprint}
        if own := row.estimate:
            low, high = interval(own.value, own.error, own.freedom, options.level)
            line |= {**own._asdict(), "low": low, "high": high}
            line |= {"interactions_per_user": row.dose, "verdict": _verdict(own, options)}
        lines.append(line)
    for base, mean in contrast.means.items():
        line = {"difference": contrast.name, "data": f"mean of {mean.num_data}", "base": base}
        line |= mean._asdict() | {"predicted": None}
        for end, value in zip(("low", "high"), mean.predicted or (), strict=False):
            line[f"predicted_{end}"] = value
        lines.append(line)
    return lines
