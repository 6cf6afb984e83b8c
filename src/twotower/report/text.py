"""How numbers, metrics and notes are written, the same in every format."""

from twotower.report.section import Section, Wanted
from twotower.report.statistics import Evidence

SHORT = {"hit_rate": "HR", "recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
MINUS = "−"


def metric_name(metric: str) -> str:
    """``ndcg@10`` as ``NDCG@10``."""
    name, at, cut = metric.partition("@")
    return f"{SHORT.get(name, name)}{at}{cut}"


def number(value: float) -> str:
    """Four decimals, no zero before the point."""
    text = f"{abs(value):.4f}"
    return (MINUS if value < 0 and float(text) else "") + text.removeprefix("0")


def signed(value: float) -> str:
    """A difference, always with its sign."""
    return number(value) if value < 0 and number(value)[0] == MINUS else f"+{number(abs(value))}"


def with_spread(value: tuple[float, float | None]) -> str:
    """``.1210 ± .0056``; the mean alone for one seed."""
    mean, spread = value
    return number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"


def interval(evidence: Evidence) -> str:
    """``+.0012 to +.0045``."""
    return f"{signed(evidence.low)} to {signed(evidence.high)}"


def p_value(p: float, resamples: int | None = None) -> str:
    """Two or three digits; never below what the number of resamples can tell."""
    least = 0.001 if resamples is None else max(0.001, 1 / (1 + resamples))
    if p < least or p < 0.001:
        return f"p < {least:.3f}".replace("0.", ".")
    return f"p = {p:.3f}".replace("0.", ".") if p < 1 else "p = 1"


def relative(value: float, start: float) -> str:
    """A difference as a share of the baseline's value."""
    return f"{value / start:+.1%}".replace("-", MINUS).replace("%", " %") if start else ""


def title(section: Section) -> str:
    """Data set and what is known of it."""
    users = f", {section.num_users:,} test users" if section.num_users else ""
    return f"{section.name}{users}" + (f" ({section.note})" if section.note else "")


def separate(sections: list[Section]) -> str:
    """Why there is more than one table."""
    return f"{len(sections)} data sets, which differ in fingerprint or masking and are never compared: a table each."


def method(section: Section, wanted: Wanted) -> list[str]:
    """What the columns mean; only of what the table has."""
    differences = [row.difference for row in section.rows if row.difference]
    lines = ["Test metrics: mean ± sample standard deviation over seeds."]
    if not differences:
        return lines
    percent = f"{wanted.level:.0%}".replace("%", " %")
    lines.append(f"Δ is the difference of {metric_name(wanted.metric)} to `{section.baseline.label}`, with {percent} intervals.")
    if any(difference.users for difference in differences):
        lines.append(
            "Over users: paired bootstrap and sign-flip test, each user's values averaged over the seeds; it asks whether other "
            "test users would show the same of *these trained models*."
        )
    if any(difference.seeds for difference in differences):
        lines.append("Over seeds: t interval of the runs, paired by seed; it asks whether other *trainings* would show the same.")
    else:
        lines.append("Over seeds nothing can be said: that needs two seeds of both.")
    counted = len(differences)
    lines.append(f"p: Holm's correction over {counted} comparison{'s' * (counted > 1)}. **Bold**: both say so.")
    return lines
