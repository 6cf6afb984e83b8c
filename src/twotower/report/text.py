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
    return (MINUS if value < 0 and float(text) else "") + (text[1:] if text[0] == "0" else text)


def signed(value: float) -> str:
    """A difference, always with its sign."""
    text = number(value)
    return text if text[0] == MINUS else f"+{text}"


def with_spread(value: tuple[float, float | None]) -> str:
    """``.1210 ± .0056``; the mean alone for one seed."""
    mean, spread = value
    return number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"


def interval(evidence: Evidence) -> str:
    """``+.0012 to +.0045``."""
    return f"{signed(evidence.low)} to {signed(evidence.high)}"


def p_value(p: float, least: float = 0.0) -> str:
    """Three digits, and not below ``least``, the smallest that a test can tell."""
    if p >= 1:
        return "p = 1"
    bound = max(least, 0.001)
    sign, shown = ("<", bound) if p < bound else ("=", p)
    return f"p {sign} {shown:.3f}".replace(" 0.", " .")


def relative(value: float, start: float) -> str:
    """A difference as a share of the baseline's value."""
    return f"{value / start:+.1%}".replace("-", MINUS).replace("%", " %")


def title(section: Section) -> str:
    """Data set and what is known of it."""
    users = f", {section.num_users:,} test users" if section.num_users else ""
    return f"{section.name}{users}" + (f" ({section.note})" if section.note else "")


def separate(sections: list[Section]) -> str:
    """Why there is more than one table."""
    return f"{len(sections)} data sets, which differ in interactions, split or masking and are never compared: a table each."


def method(sections: list[Section], wanted: Wanted) -> str:
    """What the columns mean; only of what the tables have."""
    differences = [row.difference for section in sections for row in section.rows if row.difference]
    parts = ["Test metrics: mean ± sample standard deviation over seeds."]
    if not differences:
        return parts[0]
    percent = f"{wanted.level:.0%}".replace("%", " %")
    parts.append(f"Δ: difference to the first row, with {percent} intervals.")
    if any(difference.compared.note for difference in differences):
        parts.append(
            "Where a variant and the baseline have different seeds, Δ, intervals and p are all of the seeds that both have; "
            "with fewer than two of these, of all runs of both, unpaired."
        )
    if any(difference.users for difference in differences):
        parts.append(
            "Over users: paired bootstrap and sign-flip test, each user's values averaged over the seeds: would other test users "
            "show the same of these trained models?"
        )
    if any(difference.seeds for difference in differences):
        parts.append(
            "Over seeds: t interval of the runs, paired by seed: would other trainings show the same for these users?"
        )
    else:
        parts.append("Over seeds nothing can be said: that needs two seeds on each side.")
    parts.append(
        "p: after Holm's correction over the comparisons of a table. Bold: both are below the level and agree."
    )
    return " ".join(parts)
