"""The sentences on top of a data set: what helps, how much, how sure, and the seeds it takes."""

from typing import NamedTuple

from twotower.report.comparison import Comparison, Options
from twotower.report.effects import Effect
from twotower.report.section import Section
from twotower.report.statistics import (
    MAX_SEEDS,
    Evidence,
    seeds_needed,
    smallest_found,
    spread_over_seeds,
)
from twotower.report.text import difference_text, metric_name, number, p_text, percent, to_text
from twotower.wording import typed

MAX_PARTS = 6
ABLATION = (
    "No two variants differ in one setting alone, so these runs do not show which part makes a "
    "difference: {train} -m sweep=ablation trains such variants."
)


class Answer(NamedTuple):
    """A sentence in two parts, the first of which may be emphasised."""

    lead: str
    rest: str = ""


def answers(section: Section) -> list[Answer]:
    """A sentence for each part, then what else decides how to read the tables."""
    found = [_of_part(effect, section.options) for effect in section.effects[:MAX_PARTS]]
    hidden = len(section.effects) - MAX_PARTS
    if hidden > 0:
        found.append(Answer(f"{hidden} more parts are in the table."))
    if section.comparisons and not found:
        best = section.comparisons[0]
        subject = f"{best.variant.label} instead of {section.baseline.label}"
        found += [
            _sentence(subject, "", best, section.options, 1),
            Answer(ABLATION.format(train=typed("train"))),
        ]
    return _with_popularity(found, section)


def _of_part(effect: Effect, options: Options) -> Answer:
    pair, *others = effect.pairs
    pairs = f"{pair.end.label} instead of {pair.start.label}, "
    if others:
        pairs = f"the mean of {len(effect.pairs)} pairs, "
    if effect.num_changes > 1:
        pairs += f"the best of {effect.num_changes} changes, "
    subject = f"{pair.part} ({pair.change})"
    return _sentence(subject, pairs, effect.comparison, options, effect.num_changes)


def _sentence(
    subject: str, pairs: str, comparison: Comparison, options: Options, num_tests: int
) -> Answer:
    name = metric_name(options.metric)
    value = difference_text(comparison.value, comparison.other.mean(options.metric))
    lead = f"{subject} {_verdict(comparison, options)} {name}: {value}"
    facts = f"{pairs}{_num_seeds(comparison)}; {_evidence(comparison, options)}"
    return Answer(lead, f", {facts}; {_outlook(comparison, options, num_tests)}.")


def _verdict(comparison: Comparison, options: Options) -> str:
    is_gain = comparison.value > 0
    if comparison.is_clear(options.level):
        return "helps" if is_gain else "hurts"
    if _is_found(comparison.users, options) or _is_found(comparison.seeds, options):
        return "may help" if is_gain else "may hurt"
    return "shows no sure effect on"


def _is_found(evidence: Evidence | None, options: Options) -> bool:
    return evidence is not None and evidence.adjusted < 1 - options.level


def _num_seeds(comparison: Comparison) -> str:
    """``3 seeds``, or ``3 against 2 seeds``."""
    one, other = len(comparison.one.seeds), len(comparison.other.seeds)
    plural = "" if other == 1 else "s"
    return f"{other} seed{plural}" if one == other else f"{one} against {other} seed{plural}"


def _evidence(comparison: Comparison, options: Options) -> str:
    facts = []
    if comparison.seeds:
        interval = f"{percent(options.level)} interval over seeds {to_text(comparison.seeds)}"
        facts.append(f"{interval} ({p_text(comparison.seeds)})")
    if comparison.users:
        facts.append(f"over users {p_text(comparison.users, 1 / (1 + options.resamples))}")
    else:
        facts.append("not tested over users, as ranks are missing")
    return ", ".join(facts)


def _outlook(comparison: Comparison, options: Options, num_tests: int) -> str:
    """What more seeds would bring."""
    spread = _spread(comparison, options)
    if spread is None:
        return "one seed does not show whether other trainings agree: train seed=0,1,2,3,4 of both"
    needed = needed_text(comparison, options, num_tests)
    if comparison.is_clear(options.level):
        return f"a difference of this size takes {needed} seeds to find"
    if comparison.users is None and _is_found(comparison.seeds, options):
        return "to be sure takes the test_ranks.parquet of all runs"
    if _is_found(comparison.seeds, options):
        return "more seeds do not make it sure, only more test users can"
    num_seeds = min(len(comparison.one.seeds), len(comparison.other.seeds))
    least = smallest_found(num_seeds, spread, (1 - options.level) / num_tests)
    start = comparison.other.mean(options.metric)
    shown = number(least) + (f" ({percent(least / start, '.1%')})" if start else "")
    return (
        f"a difference of this size takes {needed} seeds to find, {num_seeds} seeds find one of "
        f"{shown}"
    )


def needed_text(comparison: Comparison, options: Options, num_tests: int) -> str:
    """How many seeds find a true difference of this size; empty if it cannot be computed."""
    spread = _spread(comparison, options)
    if spread is None:
        return ""
    needed = seeds_needed(comparison.value, spread, (1 - options.level) / num_tests)
    return f"over {MAX_SEEDS}" if needed is None else str(needed)


def _spread(comparison: Comparison, options: Options) -> float | None:
    """Of the difference over seeds; None with one seed on a side."""
    one, other = (side.values(options.metric) for side in (comparison.one, comparison.other))
    return spread_over_seeds(one, other)


def _with_popularity(found: list[Answer], section: Section) -> list[Answer]:
    """The sentences, and one on variants that are not above popularity: first, if none is."""
    metric = section.options.metric
    bar = section.references.get("popularity", {}).get(metric, -1)
    below = [own.label for own in section.variants if own.mean(metric) <= bar]
    measured = f"above popularity ({metric_name(metric)} {number(bar)})"
    if not below:
        return found
    if len(below) < len(section.variants):
        return [*found, Answer(f"Not {measured}", f": {'; '.join(below)}.")]
    rest = ", so differences between variants mean little."
    return [Answer(f"No variant is {measured}", rest), *found]
