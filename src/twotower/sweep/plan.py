"""Name, folder and state of each run of a sweep, known without training."""

import json
import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twotower.errors import UserError
from twotower.files import short_hash
from twotower.run.run_folder import RunFolder, Status, records
from twotower.run.settings import Value, changes_result, key_of, names_variant

FIXED = {  # settings that cannot be varied
    "ckpt_path": "each run of a sweep continues from its own last.ckpt: leave ckpt_path out",
    "dry": "dry=true shows the whole sweep: give it one value",
    "sweep": "one command runs one sweep: give sweep one value",
}
OF_SEARCH = {  # further ones of a search
    "seed": "trials have one seed, and sweep=confirm takes others",
    "data": "a search is of one data set: start one for each",
    **dict.fromkeys(
        ("budget", "sampler", "pruner", "search", "test", "trials_at_once"),
        "all variants are searched alike",
    ),
}
OF_CONFIRM = dict.fromkeys(
    ("seed", "variant", "model", "data", "experiment", "budget"),
    "sweep=confirm takes it from the search: leave it out",
)
LONGEST_NAME = 120
UNPREPARED = "the data are not prepared yet (src/prepare.py or the first run does it)"


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
        overrides: ``key=value``, in the sweep's order.
        folder: of its results.
        fingerprint: of its config.
        model: name of the option.
        data: name of the option.
        config: as it is composed.
        choices: of the config groups.
    """

    overrides: list[str]
    folder: Path
    fingerprint: str
    model: str
    data: str
    config: Any = None
    choices: dict[str, Any] = {}

    @property
    def place(self) -> RunFolder:
        """Paths in its folder."""
        return RunFolder(self.folder)

    @property
    def status(self) -> Status:
        """See :meth:`twotower.run.run_folder.RunFolder.status`."""
        return self.place.status(self.fingerprint)

    @property
    def settings(self) -> dict[str, str]:
        """Value by key."""
        pairs = (text.lstrip("+").partition("=") for text in self.overrides if "=" in text)
        return {key: value for key, _, value in pairs}

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for two runs of one config, unless they differ in settings without effect."""
        idle = (text for text in self.overrides if not changes_result(key_of(text)))
        return (self.fingerprint, *sorted(idle))


def run_name(
    overrides: Iterable[str], elsewhere: Iterable[str] = (), varied: Iterable[str] = ()
) -> str:
    """Name of a run's folder: ``seed-0+variant-dat`` of ``seed=0`` and ``variant=dat``.

    Args:
        overrides: of one run.
        elsewhere: keys that are in the name of the sweep's folder.
        varied: keys that the sweep varies; the name always has them.

    Returns:
        The same name for the same overrides in any order, which a later override can hold without
        quotes. A name that other overrides could have too ends in a hash of all overrides; a name
        that is too long has the varied keys alone, and the hash.
    """
    kept = []
    for override in sorted(overrides):
        key = key_of(override)
        if key in varied or (changes_result(key) and key not in elsewhere):
            kept.append(override)
    exact = "\n".join(kept)
    name = _file_name(_joined(kept), exact, plain="+" not in "".join(kept))
    if len(name) <= LONGEST_NAME:
        return name
    short = [override for override in kept if key_of(override) in varied]
    return _file_name(_joined(short or kept), exact, plain=False)


def sweep_name(sweep: str | None, swept: dict[str, str], data: str) -> str:
    """Name of a sweep's folder: ``ablation-movielens_1m``, or of the keys that it varies.

    Args:
        sweep: name of the option ``sweep=``.
        swept: the varied keys, and their values separated by commas.
        data: name of the option ``data=``, unless it is varied.
    """
    what = sweep or "+".join(sorted(key_of(key) for key in swept)) or "single"
    data = swept["data"].replace(",", "+") if "data" in swept else data
    name = f"{what}-{data}"
    return _file_name(name, name, plain=True)


def refuse_axes(varied: Iterable[str], fixed: Mapping[str, str] = FIXED) -> None:
    """Refuse to vary settings of the whole sweep.

    Args:
        varied: keys.
        fixed: those that cannot be, each with the reason.

    Raises:
        UserError: naming the setting.
    """
    for key in varied:
        if key in fixed:
            raise UserError(f"{key} cannot be varied: {fixed[key]}")


def refuse_twins(runs: list[Run], varied: Collection[str] = ()) -> None:
    """Refuse two runs of one config, which would be one result counted twice.

    Args:
        runs: of the sweep.
        varied: keys that name runs whose overrides are the same; else their folders do.

    Raises:
        UserError: naming both.
    """
    seen: dict[tuple[str, ...], Run] = {}
    for run in runs:
        twin = seen.setdefault(run.identity, run)
        if twin is not run:
            one, other = _difference(twin, run, varied), _difference(run, twin, varied)
            raise UserError(
                f"{one} and {other} are the same run: leave out one of them, or the setting that "
                "makes them equal"
            )


def _difference(run: Run, other: Run, varied: Collection[str]) -> str:
    different = [text for text in run.overrides if text not in other.overrides]
    named = different or [text for text in run.overrides if key_of(text) in varied]
    return " ".join(named) or run.folder.name


def quoted(text: str | Path) -> str:
    """A text in quotes of Hydra's grammar."""
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def as_override(value: Value) -> str:
    """A value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return quoted(value) if isinstance(value, str) else repr(value)


def variant_of(overrides: Iterable[str]) -> frozenset[str]:
    """The overrides of a run without its seed and those that change no result."""
    return frozenset(override for override in overrides if names_variant(key_of(override)))


def estimate_seconds(
    runs: list[Run], output_dir: Path, in_passes: Collection[int] = ()
) -> tuple[list[float | None], int]:
    """How long each run may take, from finished runs of the same overrides, else model and data.

    Args:
        runs: of the sweep.
        output_dir: where finished runs are looked for.
        in_passes: places of runs that are trained in one pass with others. Only these can take as
            long as finished runs of a pass have taken.

    Returns:
        Median seconds for each run, None if no such run has finished, and the number of finished
        runs that were read.
    """
    seconds: dict[Hashable, list[float]] = {}
    finished = [record for record in records(output_dir) if "wall_seconds" in record]
    for record in finished:
        was_in_pass = record.get("fused", 1) > 1
        model_and_data = (record.get("model"), record.get("data"))
        for key in (variant_of(record.get("overrides", [])), model_and_data):
            seconds.setdefault((was_in_pass, key), []).append(share_of_seconds(record))
    estimates: list[float | None] = []
    for place, run in enumerate(runs):
        kinds = (True, False) if place in in_passes else (False,)
        keys = (variant_of(run.overrides), (run.model, run.data))
        known = [seconds[kind, key] for kind in kinds for key in keys if (kind, key) in seconds]
        estimates.append(sorted(known[0])[len(known[0]) // 2] if known else None)
    return estimates, len(finished)


def share_of_seconds(record: dict[str, Any]) -> float:
    """A finished run's time; its share of it if several runs were trained in one pass."""
    return float(record["wall_seconds"] / record.get("fused", 1))


def _joined(overrides: list[str]) -> str:
    return "+".join(overrides).replace("=", "-")


def _file_name(text: str, exact: str, plain: bool) -> str:
    text = text or "default"
    name = re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII)
    if plain and name == text and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}@{short_hash(exact, 10)}"
