"""How numbers, metrics and notes are written, the same in every format."""

from twotower import wording
from twotower.plotting import short
from twotower.report.section import Section
from twotower.report.statistics import POWER, Evidence
from twotower.report.variants import Variant

SHORT = {
    "hit_rate": "HR",
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "coverage": "Coverage",
    "novelty": "Novelty",
    "debiased_hit_rate": "Debiased HR",
    "debiased_ndcg": "Debiased NDCG",
}
MINUS = "−"
SECTIONS = "The data sets differ in interactions, split or masking, so they are not compared."
ONE_PART = "One part at a time"
ALL_VARIANTS = "All variants"
PROTOCOL = "Protocol"
REPEATS = "Commands and run folders"
METRICS = {
    "↑": "higher is better, as for all metrics here",
    "±": "sample standard deviation over seeds, of test metrics",
}
REFERENCES = {
    "popularity": "all items by their number of training interactions, the same for every user",
    "oracle": "the best possible ranking, which is known of synthetic data",
}
COMPARISONS = {
    "Δ": "difference to the first row, or to the variant without the part, with LEVEL intervals; "
    "over the seeds that both have, with fewer than two of these over all runs of both, unpaired",
    "over users": "would other test users show the same of these trained models? Paired bootstrap "
    "and sign-flip test of each user's mean over the seeds",
    "over seeds": "would other trainings show the same for these users? t interval of the runs, "
    "paired by seed; needs two seeds on each side",
    "p": "after Holm's correction over the comparisons with the first row, or over the pairs of a "
    "part",
    "bold": "both tests are below the level and agree",
}
PARTS = {
    "part": "each row is of two variants that differ in that part alone; of a setting with several "
    "values, each is compared with the first",
    "seeds needed": "so many find a true difference of the measured size over seeds, with a chance "
    "of CHANCE",
}


def metric_name(metric: str) -> str:
    """``ndcg@10`` as ``NDCG@10``."""
    name, at, cut = metric.partition("@")
    return f"{SHORT.get(name, name)}{at}{cut}"


def number(value: float, sign: str = "") -> str:
    """Four decimals, no zero before the point; ``sign`` stands before positive numbers."""
    text = wording.number(abs(value))
    return (MINUS if value < 0 and float(text) else sign) + text


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
    """``+.0012 to +.0045`` and, in a second line, ``p = .012``; see :func:`p_text`."""
    return f"{to_text(evidence)}\n{p_text(evidence, least)}"


def to_text(evidence: Evidence) -> str:
    """The interval: ``+.0012 to +.0045``."""
    return f"{number(evidence.low, '+')} to {number(evidence.high, '+')}"


def p_text(evidence: Evidence, least: float = 0) -> str:
    """The corrected p: ``p = .012``.

    Args:
        evidence: of a test.
        least: the smallest p that the test can give.
    """
    p, bound = evidence.adjusted, max(least, 0.001)
    sign, shown = ("<", bound) if p < bound else ("=", p)
    return "p = 1" if p >= 1 else f"p {sign} {shown:.3f}".replace(" 0.", " .")


def title(section: Section) -> str:
    """Name of the data set and what is known of it."""
    users = f", {section.num_users:,} test users" if section.num_users else ""
    return f"{section.name}{users}" + (f" ({section.note})" if section.note else "")


def versus(section: Section) -> str:
    """What the differences of a data set are."""
    baseline = short(section.baseline.label)
    return f"{short(section.name)}: Δ {metric_name(section.options.metric)} to {baseline}"


def legend(sections: list[Section]) -> dict[str, str]:
    """What the words and signs of the tables mean; empty without data sets."""
    if not sections:
        return {}
    known = {name for section in sections for name in section.references}
    words = METRICS | {name: text for name, text in REFERENCES.items() if name in known}
    if any(section.comparisons for section in sections):
        words |= COMPARISONS
    if any(section.parts for section in sections):
        words |= PARTS
    level = percent(sections[0].options.level)
    chance = percent(POWER)
    return {
        word: text.replace("LEVEL", level).replace("CHANCE", chance) for word, text in words.items()
    }
