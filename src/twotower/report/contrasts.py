"""Finds the same difference on several data sets and bases."""

import re
from typing import Any, NamedTuple

from twotower.errors import UserError
from twotower.report.comparison import Options
from twotower.report.estimate import Estimate, estimate
from twotower.report.section import Section
from twotower.report.text import MINUS
from twotower.report.variants import Variant, greek, on_common_seeds, with_settings
from twotower.run.settings import DERIVED, Kind, Value, key_of, kind_of

SAME_DATA = {  # options with the interactions of another one
    "amazonbooks_lightgcn": "amazon_books",
    "movielens_latest_small": "movielens_latest",
    "s3rec_beauty": "amazon_beauty",
    "s3rec_sports": "amazon_sports",
    "s3rec_toys": "amazon_toys",
    "sasrec_movielens_1m": "movielens_1m",
}


class Row(NamedTuple):
    """A difference on one data set.

    Attributes:
        section: the data set.
        data: its label, different for each data set.
        base: what the variant and its control are built on: the control's name.
        one: the variant, with the runs that are compared.
        other: the control, with the runs that are compared.
        estimate: None with one seed on a side, or if the control's mean is 0.
        dose: training interactions per user; None if the runs' records do not have it.
    """

    section: Section
    data: str
    base: str
    one: Variant
    other: Variant
    estimate: Estimate | None
    dose: float | None

    @property
    def source(self) -> tuple[str, ...]:
        """Where the interactions come from: splits and parts of the same are no other data."""
        record = self.section.baseline.runs[0].record
        of_data = [text for text in record.overrides if kind_of(key_of(text)) is Kind.DATA]
        return (SAME_DATA.get(record.data, record.data), *sorted(of_data))

    @property
    def limit(self) -> Value:
        """Interactions of a user at most, if the data were thinned; None: they are whole."""
        return self.section.baseline.settings.get("data.max_per_user")


class _Pair(NamedTuple):
    """A variant, what it is compared with, and the names of the difference and of the base."""

    name: str
    base: str
    variant: Variant
    control: Variant


def find_rows(sections: list[Section], options: Options) -> dict[str, list[Row]]:
    """Differences to the control, or without one those of parts on two or more data sets or bases.

    Returns:
        By the name of the difference, such as ``dat − dat_lambda0`` or ``λ3: 0 → 1``.

    Raises:
        UserError: if ``options.control`` names no variant.
    """
    found: dict[str, list[Row]] = {}
    for section, data in zip(sections, data_labels(sections), strict=True):
        for pair in _pairs(section, options):
            found.setdefault(pair.name, []).append(_row(section, data, pair))
    for rows in found.values():
        rows.sort(key=lambda row: (row.data, row.base))
    if options.control is None:
        return {name: rows for name, rows in found.items() if _are_several(rows)}
    if not found:
        listed = sorted({own.label for section in sections for own in section.variants})
        raise UserError(
            f"control={options.control} names no variant that others can be compared with; there "
            f"are: {'; '.join(listed)}"
        )
    return found


def _are_several(rows: list[Row]) -> bool:
    """Two data sets or bases? Variants that differ in loss weights are on one base."""
    bases = set()
    for row in rows:
        own = row.other.settings.items()
        bases.add(frozenset(pair for pair in own if not pair[0].startswith("loss.")))
    return len({row.data for row in rows}) > 1 or len(bases) > 1


def data_labels(sections: list[Section]) -> list[str]:
    """Names of the data sets; to equal ones the settings that differ are added."""
    labels = with_settings([own.name for own in sections], [_of_data(own) for own in sections])
    labels = [re.sub(r" \S+=unset", "", label) for label in labels]
    return [
        f"{label} {own.fingerprint[:6]}" if labels.count(label) > 1 else label
        for label, own in zip(labels, sections, strict=True)
    ]


def _of_data(section: Section) -> dict[str, Any]:
    """Settings of the data that all variants share."""
    shared = set.intersection(*(set(own.settings.items()) for own in section.variants))
    return {
        key.removeprefix("data."): value
        for key, value in shared
        if key.startswith("data.") and key not in DERIVED
    }


def _pairs(section: Section, options: Options) -> list[_Pair]:
    if options.control is not None:
        return _to_control(section.variants, greek(options.control))
    pairs = [pair for pair, _ in section.parts]
    bases = _short([pair.start.label for pair in pairs])
    return [
        _Pair(f"{pair.part}: {pair.change}", bases[pair.start.label], pair.end, pair.start)
        for pair in pairs
    ]


def _to_control(variants: list[Variant], name: str) -> list[_Pair]:
    """Each variant with the control that it shares most settings with: that is its base."""
    controls = [own for own in variants if f"_{_word(own.label)}".endswith(f"_{name}")]
    controls = controls or [own for own in variants if name in own.label]
    bases = _short([control.label for control in controls])
    others: dict[str, list[Variant]] = {control.label: [] for control in controls}
    for variant in variants:
        if variant.label not in others and controls:
            nearest = min(controls, key=lambda control: _distance(control, variant))
            others[nearest.label].append(variant)
    found = []
    for control in controls:
        word = _word(control.label)
        prefix = word.removesuffix(name) if word.endswith(name) else ""  # sasrec_ of sasrec_dat
        short = _short([own.label for own in others[control.label]])
        for variant in others[control.label]:
            shown = short[variant.label].removeprefix(prefix)
            found.append(_Pair(f"{shown} {MINUS} {name}", bases[control.label], variant, control))
    return found


def _word(label: str) -> str:
    return label.partition(" ")[0]


def _short(labels: list[str]) -> dict[str, str]:
    """The first word of each label if no other begins with it: settings differ between data."""
    words = [_word(label) for label in dict.fromkeys(labels)]
    return {label: _word(label) if words.count(_word(label)) == 1 else label for label in labels}


def _distance(one: Variant, other: Variant) -> tuple[int, str]:
    return len({key for key, _ in one.settings.items() ^ other.settings.items()}), one.label


def _row(section: Section, data: str, pair: _Pair) -> Row:
    (one, other), _ = on_common_seeds([pair.variant, pair.control])
    metric = section.options.metric
    found = estimate(one, other, metric, section.options.metrics[metric])
    runs = [run for own in section.variants for run in own.runs]
    doses = (run.record.interactions_per_user for run in runs)
    return Row(section, data, pair.base, one, other, found, next(filter(None, doses), None))
