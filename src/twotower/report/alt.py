"""What each plot shows, in words, for readers who do not see it."""

from collections.abc import Callable

from twotower.report.section import Section
from twotower.report.text import difference_text, metric_name, number, percent
from twotower.report.variants import Variant

MAX_NAMED = 6


def describe(plot: str, section: Section) -> str:
    """The text for a plot of :data:`twotower.report.plots.PLOTS`."""
    return TEXTS[plot](section)


def _differences(section: Section) -> str:
    options = section.options
    rows = [
        f"{row.variant.label} {difference_text(row.value, row.other.mean(options.metric))}"
        for row in section.comparisons
        if row.users or row.seeds
    ]
    return (
        f"Difference of test {metric_name(options.metric)} to {section.baseline.label}, a row for "
        f"each variant with {percent(options.level)} intervals over users and over seeds: "
        f"{_first(rows)}."
    )


def _lambda_curves(section: Section) -> str:
    name = metric_name(section.options.metric)
    effects = []
    for effect in section.effects:
        pair = effect.pairs[0]
        if pair.part.startswith("λ"):
            effects.append(f"{pair.part} {pair.change} {number(effect.comparison.value, '+')}")
    return (
        f"Test {name} by loss weight, a panel for each weight, mean and spread over seeds. "
        f"Differences of {name}: {', '.join(effects)}."
    )


def _lambda_grid(section: Section) -> str:
    return f"Heat map of test {metric_name(section.options.metric)} by two loss weights. " + _best(
        section
    )


def _categories(section: Section) -> str:
    return (
        f"Difference of test {metric_name(section.options.metric)} to {section.baseline.label} by "
        "category, the largest in training first, a panel for each of the best variants, with "
        f"{percent(section.options.level)} intervals over users."
    )


def _learning(section: Section) -> str:
    return (
        f"Validation {metric_name(section.options.metric)} by epoch, a panel for each variant "
        f"beside {section.baseline.label}, mean and spread over seeds. {_best(section)}"
    )


TEXTS: dict[str, Callable[[Section], str]] = {
    "differences": _differences,
    "lambda_curves": _lambda_curves,
    "lambda_grid": _lambda_grid,
    "categories": _categories,
    "learning": _learning,
}


def _best(section: Section) -> str:
    """The best variant in the test."""
    metric = section.options.metric
    best: Variant = max(section.variants, key=lambda variant: variant.mean(metric))
    name = metric_name(metric)
    return f"The best in the test is {best.label} with {name} {number(best.mean(metric))}."


def _first(texts: list[str]) -> str:
    """The first texts, and how many there are more."""
    rest = len(texts) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f", and {rest} more" if rest > 0 else "")
