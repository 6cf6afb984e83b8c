"""Sentences and table of a search: the expected best by number of trials."""

from typing import Any

from twotower.report.answer import Answer
from twotower.report.blocks import Block, Plot
from twotower.report.budget import Curve, Ranking, chance_above, curves_of, rankings
from twotower.report.comparison import Options
from twotower.report.grid import Grid, Line
from twotower.report.search_plot import draw_curves
from twotower.report.searches import About, Search
from twotower.report.text import number, percent
from twotower.wording import clip, duration

TABLE = "Expected best validation by number of trials"
MAX_NAMED = 4  # rankings in a sentence
WORDS = {
    "expected best": "the largest validation value of so many independent draws from the trials of "
    "this search (Dodge et al., EMNLP 2019, equation 5); a pruned trial counts with its best value "
    "so far, a failed one as the worst of the search, a running one not",
    "±": "standard deviation of the best between searches of so many trials; no interval: it does "
    "not contain that these trials are few, and with as many as there are the expected best is too "
    "low (Tang et al., ACL 2020)",
}
ORDERED = (
    "{} learns from earlier trials, so trials are not independent, and the curve says what they "
    "would give in any order; the dotted line is the best so far in the order of the search"
)


def search_block(search: Search, place: int, options: Options) -> Block:
    """The block of the ``place``-th search."""
    curves = curves_of(search)
    answers = _answers(search, curves, options)
    alt = (
        f"Expected best {search.about.metric} by number of trials, a line for each variant with "
        f"a band of ± one standard deviation. {answers[0].lead}{answers[0].rest}"
    )
    about = ", ".join(filter(None, [search.about.data, sampler(search.about)]))
    return Block(
        name=f"search-{place}",
        title=f"Search {clip(search.name, 60)}" + (f" ({about})" if about else ""),
        answers=answers,
        tables={TABLE: _grid(search, curves)},
        plots=[Plot("budget", lambda: draw_curves(search, curves), alt)],
        words=_words(search),
        rows=_csv(search, curves),
    )


def sampler(about: About) -> str:
    """Its name: ``tpe``, or the last part of ``_target_``."""
    own = about.sampler
    text = str(own.get("name") or own.get("_target_") or "") if isinstance(own, dict) else own
    return clip((text or "").rpartition(".")[2], 40)


def _words(search: Search) -> dict[str, str]:
    words = dict(WORDS)
    name = sampler(search.about)
    if name and not any(kind in name.lower() for kind in ("random", "grid")):
        words["order of the trials"] = ORDERED.format(name)
    return words


def _answers(search: Search, curves: list[Curve], options: Options) -> list[Answer]:
    metric, most = search.about.metric, search.num_trials
    found, last = rankings(search, curves), f"{most} trial{'s' * (most > 1)}"
    if len(curves) == 1:
        value = number(float(curves[0].best[-1]))
        return [Answer(f"{curves[0].variant} reaches {metric} {value}", f" with {last}.")]
    lead = _lead(found[-1], search, options)
    if len(found) == 1:
        best = found[0].variants[0]
        sentence = Answer(f"The ranking is the same with 1 to {last}", f": {best} first; {lead}.")
    else:
        changes = "; ".join(map(_ranked, _named(found)))
        hidden = len(found) - len(_named(found))
        more = f" ({hidden} more changes between)" if hidden else ""
        sentence = Answer("The ranking depends on the budget", f": {changes}{more}; {lead}.")
    counts = {own.variant: len(own.values) for own in search.variants}
    if len(set(counts.values())) == 1:
        return [sentence]
    listed = ", ".join(f"{variant} {count}" for variant, count in counts.items())
    return [sentence, Answer("The budgets differ", f": {listed} trials; compared up to {last}.")]


def _named(found: list[Ranking]) -> list[Ranking]:
    return found if len(found) <= MAX_NAMED else [*found[: MAX_NAMED - 1], found[-1]]


def _ranked(own: Ranking) -> str:
    order = " > ".join(own.variants)
    if own.first == own.last:
        return f"with {own.first} trial{'s' * (own.first > 1)} {order}"
    return f"with {own.first} to {own.last} {order}"


def _lead(own: Ranking, search: Search, options: Options) -> str:
    """How often the best is above the second with all trials, and whether that is sure."""
    most, (one, other) = search.num_trials, own.variants[:2]
    values = {trials.variant: trials.values for trials in search.variants}
    chance = chance_above(values[one], values[other], most)
    is_sure = chance >= options.level
    said = "" if is_sure else ", so another search could turn the two around"
    return f"with {most} {one} is above {other} in {percent(chance)} of draws{said}"


def _grid(search: Search, curves: list[Curve]) -> Grid:
    budgets = _budgets(max(len(own.best) for own in curves))
    heading = ["variant", *map(str, budgets), "trials", "pruned", "failed", "time"]
    lines = []
    for own, curve in zip(search.variants, curves, strict=True):
        cells = []
        for budget in budgets:
            known = zip(curve.best[budget - 1 : budget], curve.spread[budget - 1 :], strict=False)
            cells.append("".join(f"{number(best)} ± {number(spread)}" for best, spread in known))
        counts = [str(own.states.count(state)) for state in ("pruned", "failed")]
        lines.append(
            Line([own.variant, *cells, str(len(own.values)), *counts, duration(own.seconds)])
        )
    return Grid(heading, lines, None, len(heading))


def _budgets(most: int) -> list[int]:
    """1, 2, 4, … and the last."""
    return sorted({*(2**power for power in range(most.bit_length()) if 2**power < most), most})


def _csv(search: Search, curves: list[Curve]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for curve in curves:
        about = {"search": search.name, "metric": search.about.metric, "variant": curve.variant}
        for place in range(len(curve.best)):
            own = {"expected best": curve.best[place], "sd": curve.spread[place]}
            own |= {"best so far": curve.so_far[place]}
            values = {name: float(value) for name, value in own.items()}
            rows.append({**about, "trials": place + 1, **values})
    return rows
