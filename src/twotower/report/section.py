"""One data set of a report: its variants, and how sure their differences are."""

from collections import Counter
from itertools import chain
from typing import NamedTuple

import numpy as np

from twotower.report.comparison import Comparison, Options, compare
from twotower.report.effects import Effect, Row, effects_of
from twotower.report.quoted import Quoted, fitting
from twotower.report.ranks import Ranks
from twotower.report.runs import LeftOut, Run
from twotower.report.variants import Variant, choose_baseline, variants


class Section(NamedTuple):
    """One data set.

    Attributes:
        name: of the data, the option of ``data=``.
        fingerprint: of the interactions and their split.
        note: of the data set.
        baseline: the variant that the others are compared with.
        comparisons: one for each other variant, the best first.
        parts: pairs of variants that differ in one part, by part; first the pair with most seeds,
            of several the largest gain.
        effects: one for each part.
        references: metrics of popularity and of the best possible ranking, where runs have them.
        quoted: published rows.
        left_out: runs of this data set that are not counted everywhere.
        num_users: number of test users; None if no run has ranks.
        options: of the report.
    """

    name: str
    fingerprint: str
    note: str
    baseline: Variant
    comparisons: list[Comparison]
    parts: list[Row]
    effects: list[Effect]
    references: dict[str, dict[str, float]]
    quoted: list[Quoted]
    left_out: list[LeftOut]
    num_users: int | None
    options: Options

    @property
    def variants(self) -> list[Variant]:
        """The baseline, then the others, the best first."""
        return [self.baseline, *(comparison.variant for comparison in self.comparisons)]


def make_section(runs: list[Run], options: Options) -> Section:
    """Compare the runs of one data set.

    Raises:
        UserError: if ``options.baseline`` names no variant of these.
    """
    found, left_out = variants(_on_same_targets(runs))
    baseline = choose_baseline(found, options.baseline)
    others = [variant for variant in found if variant is not baseline]
    others.sort(key=lambda variant: -variant.mean(options.metric))
    num_users = None
    for run in chain.from_iterable(variant.runs for variant in found):
        if isinstance(run.ranks, Ranks):
            num_users = len(np.unique(run.ranks.user))
        else:
            left_out.append(LeftOut(run.name, f"not in the tests over users: {run.ranks}"))
    parts, effects = effects_of(found, options)
    record = runs[0].record
    return Section(
        name=record.data,
        fingerprint=record.split_fingerprint,
        note=record.data_note,
        baseline=baseline,
        comparisons=compare([(variant, baseline) for variant in others], options),
        parts=parts,
        effects=effects,
        references=_references(runs),
        quoted=fitting(options.published, record.data, num_users, found),
        left_out=left_out,
        num_users=num_users,
        options=options,
    )


def _on_same_targets(runs: list[Run]) -> list[Run]:
    """The runs, without ranks where these are of other targets than most runs'."""
    targets = [run.ranks.targets() if isinstance(run.ranks, Ranks) else "" for run in runs]
    usual = Counter(filter(None, targets)).most_common(1)
    problem = "its ranks are of other users or items than most runs'"
    return [
        run._replace(ranks=problem) if own and own != usual[0][0] else run
        for run, own in zip(runs, targets, strict=True)
    ]


def _references(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Values of any run: they are the same for all runs of a data set."""
    found: dict[str, dict[str, float]] = {}
    models = {run.record.model for run in runs}
    for record in (run.record for run in runs):
        values = {"popularity": record.popularity, "oracle": record.oracle}
        found |= {name: own for name, own in values.items() if own and name not in models}
    return found
