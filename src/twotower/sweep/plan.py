"""What a sweep consists of: the name, folder and state of each run, told without training anything."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from twotower.errors import UserError
from twotower.files import short_hash
from twotower.run.run_folder import RunFolder, Status, records
from twotower.run.settings import changes_result, key_of, names_variant

NO_AXIS = {  # settings that cannot be varied
    "ckpt_path": "each run of a sweep goes on from its own last.ckpt: leave ckpt_path out",
    "dry": "dry=true shows the whole sweep: give it one value",
    "sweep": "one command runs one sweep: give sweep one value",
}
LONGEST_NAME = 120


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
        overrides: what it was told, ``key=value``, in the sweep's order.
        folder: where it leaves its results.
        fingerprint: of its config.
        model: name of the option.
        data: name of the option.
    """

    overrides: list[str]
    folder: Path
    fingerprint: str
    model: str
    data: str

    @property
    def place(self) -> RunFolder:
        """Its folder, and what stands in it."""
        return RunFolder(self.folder)

    @property
    def status(self) -> Status:
        """See :meth:`twotower.run.run_folder.RunFolder.status`."""
        return self.place.status(self.fingerprint)

    @property
    def settings(self) -> dict[str, str]:
        """Value by key."""
        return dict(
            override.lstrip("+").split("=", 1) for override in self.overrides if "=" in override
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for two runs of one config, unless the sweep varies what has no effect on a result."""
        idle = (override for override in self.overrides if not changes_result(key_of(override)))
        return (self.fingerprint, *sorted(idle))


def run_name(
    overrides: Iterable[str], elsewhere: Iterable[str] = (), varied: Iterable[str] = ()
) -> str:
    """A folder's name: ``seed-0+variant-dat`` of ``seed=0`` and ``variant=dat``, which a later override can hold unquoted.

    Args:
        overrides: of one run.
        elsewhere: keys that the sweep's folder tells already.
        varied: keys that the sweep varies: they are in the name, whatever they are.

    Returns:
        The same name for the same overrides in any order. What such a name cannot tell apart ends
        in a hash, of all overrides; a long name tells what is varied alone.
    """
    kept = []
    for override in sorted(overrides):
        key = key_of(override)
        if key in varied or (changes_result(key) and key not in elsewhere):
            kept.append(override)
    exact = "\n".join(kept)
    plain = not any("+" in override for override in kept)
    name = _file_name(_joined(kept), exact, plain)
    if len(name) <= LONGEST_NAME:
        return name
    telling = [override for override in kept if key_of(override) in varied]
    return _file_name(_joined(telling or kept), exact, plain=False)


def sweep_name(sweep: str | None, swept: dict[str, str], data: str) -> str:
    """A sweep's name: ``ablation-movielens_1m``, or of the keys that it varies.

    Args:
        sweep: name of the option ``sweep=``.
        swept: keys with several values, and these.
        data: name of the option ``data=``, unless it is swept.
    """
    what = sweep or "+".join(sorted(key_of(key) for key in swept)) or "single"
    if "data" in swept:
        data = swept["data"].replace(",", "+")
    name = f"{what}-{data}"
    return _file_name(name, name, plain=True)


def refuse_axes(varied: Iterable[str]) -> None:
    """Refuse to vary what says how the whole sweep runs.

    Raises:
        UserError: naming the setting.
    """
    for key in varied:
        if key in NO_AXIS:
            raise UserError(f"{key} cannot be varied: {NO_AXIS[key]}")


def refuse_twins(runs: list[Run]) -> None:
    """Two runs of one config would be one result counted twice, mostly under a wrong name.

    Raises:
        UserError: naming both.
    """
    seen: dict[tuple[str, ...], Run] = {}
    for run in runs:
        twin = seen.setdefault(run.identity, run)
        if twin is not run:
            one, other = (
                " ".join(o for o in r.overrides if o not in s.overrides)
                for r, s in ((twin, run), (run, twin))
            )
            raise UserError(
                f"{one or twin.folder.name} and {other or run.folder.name} are the same run: leave out one, or what unites them"
            )


def quoted(text: str | Path) -> str:
    """A value that Hydra's grammar takes as it is."""
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def estimate_seconds(runs: list[Run], output_dir: Path) -> tuple[list[float | None], int]:
    """How long each run may take: as long as finished ones of the same overrides, else of the same model and data.

    Returns:
        Median seconds for each run, None where nothing like it has finished, and how many finished runs were looked at.
    """
    like: dict[Any, list[float]] = {}
    finished = [record for record in records(output_dir) if "wall_seconds" in record]
    for record in finished:
        for key in (_kind(record.get("overrides", [])), (record.get("model"), record.get("data"))):
            like.setdefault(key, []).append(record["wall_seconds"])
    found = [like.get(_kind(run.overrides)) or like.get((run.model, run.data)) for run in runs]
    return [sorted(seconds)[len(seconds) // 2] if seconds else None for seconds in found], len(
        finished
    )


def _kind(overrides: Iterable[str]) -> frozenset[str]:
    return frozenset(override for override in overrides if names_variant(key_of(override)))


def _joined(overrides: list[str]) -> str:
    return "+".join(overrides).replace("=", "-")


def _file_name(text: str, exact: str, plain: bool) -> str:
    name = re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII) or "default"
    if plain and name == (text or "default") and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}@{short_hash(exact, 10)}"
