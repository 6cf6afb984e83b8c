"""How numbers, metrics and notes are written, the same in every format."""

from twotower.plotting import short
from twotower.report.section import Section
from twotower.report.statistics import Evidence
from twotower.report.variants import Variant

SHORT = {"hit_rate": "HR", "recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
MINUS = "−"
SECTIONS = "The data sets differ in interactions, split or masking, so they are not compared."
METRICS = "Test metrics: mean ± sample standard deviation over seeds."
COMPARISONS = (
    "Δ: difference to the first row with LEVEL intervals, over the seeds that both have; with "
    "fewer than two of these, over all runs of both, unpaired. Over users: paired bootstrap and "
    "sign-flip test of each user's mean over the seeds: would other test users show the same of "
    "these trained models? Over seeds (needs two on each side): t interval of the runs, paired by "
    "seed: would other trainings show the same for these users? p: after Holm's correction over "
    "the comparisons of a table. Bold: both are below the level and agree."
)


def metric_name(metric: str) -> str:
    """``ndcg@10`` as ``NDCG@10``."""
    name, at, cut = metric.partition("@")
    return f"{SHORT.get(name, name)}{at}{cut}"


def number(value: float, sign: str = "") -> str:
    """Four decimals, no zero before the point; ``sign`` stands before positive numbers."""
    text = f"{abs(value):.4f}"
    return (MINUS if value < 0 and float(text) else sign) + text.removeprefix("0")


def with_spread(variant: Variant, metric: str) -> str:
    """``.1210 ± .0056``: mean and sample standard deviation; the mean alone of one seed."""
    spread = variant.spread(metric)
    mean = number(variant.mean(metric))
    return mean if spread is None else f"{mean} ± {number(spread)}"


def difference_text(value: float, start: float) -> str:
    """``+.0045 (+2.1 %)``, the second as a share of ``start``."""
    share = f" ({percent(value / start, '+.1%')})" if start else ""
    return f"{number(value, '+')}{share}"


def percent(share: float, form: str = ".0%") -> str:
    """``95 %``."""
    return f"{share:{form}}".replace("-", MINUS).replace("%", " %")


def evidence_text(evidence: Evidence, least: float = 0) -> str:
    """``+.0012 to +.0045`` and, in a second line, ``p = .012``.

    Args:
        evidence: with the corrected p.
        least: the smallest p that the test can give.
    """
    p, bound = evidence.adjusted, max(least, 0.001)
    sign, shown = ("<", bound) if p < bound else ("=", p)
    text = "p = 1" if p >= 1 else f"p {sign} {shown:.3f}".replace(" 0.", " .")
    return f"{number(evidence.low, '+')} to {number(evidence.high, '+')}\n{text}"


def title(section: Section) -> str:
    """Name of the data set and what is known of it."""
    users = f", {section.num_users:,} test users" if section.num_users else ""
    return f"{section.name}{users}" + (f" ({section.note})" if section.note else "")


def versus(section: Section) -> str:
    """What the differences of a data set are."""
    baseline = short(section.baseline.label)
    return f"{section.name}: Δ {metric_name(section.options.metric)} to {baseline}"


def legend(sections: list[Section]) -> str:
    """What the columns mean, and why there is more than one table."""
    text = METRICS
    if len(sections) > 1:
        text = f"{SECTIONS} {text}"
    if any(section.comparisons for section in sections):
        level = percent(sections[0].options.level)
        text = f"{text} {COMPARISONS.replace('LEVEL', level)}"
    return text
