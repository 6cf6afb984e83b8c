"""What a sweep consists of: the name, folder and state of each run, told without training anything."""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from twotower.records import fitting, read_json
from twotower.types import UserError

MARK = ".fingerprint"  # in a run's folder: which config it belongs to
STARTED = ("metrics.json", "failed.json", "checkpoints/last.ckpt")
WITHOUT_EFFECT = (  # on a run's result: neither in its folder's name nor in its fingerprint
    "paths",
    "logger",
    "ckpt_path",
    "dry",
    "sweep",
    "callbacks.progress",
    "model.sharding",
    "trainer.enable_progress_bar",
)
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
    def status(self) -> str:
        """``done``, ``failed``, ``resume`` (begun), ``changed`` (the folder holds a run of another config) or ``new``."""
        return status(self.folder, self.fingerprint)

    @property
    def settings(self) -> dict[str, str]:
        """Value by key."""
        return dict(override.lstrip("+").split("=", 1) for override in self.overrides if "=" in override)


def fingerprint(config: DictConfig) -> str:
    """Names the settings that decide a run's result: equal for equal settings, whatever wrote them."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for key in WITHOUT_EFFECT:
        *parents, leaf = key.split(".")
        node = plain
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(leaf, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def status(folder: Path, expected: str) -> str:
    """State of a run's folder, see :class:`Run`."""
    started = [name for name in STARTED if (folder / name).exists()]
    if not started:
        return "new"
    mark = folder / MARK
    if not mark.exists() or mark.read_text() != expected:
        return "changed"
    if "metrics.json" in started:
        return "done"
    return "failed" if "failed.json" in started else "resume"


def run_name(overrides: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """A folder's name: ``seed-0+variant-dat`` of ``seed=0`` and ``variant=dat``, which a later override can hold unquoted.

    Args:
        overrides: of one run.
        elsewhere: keys that the sweep's folder tells already.

    Returns:
        The same name for the same overrides in any order. What such a name cannot tell apart ends in a hash.
    """
    kept = sorted(override for override in overrides if not _is_within(_key(override), (*WITHOUT_EFFECT, *elsewhere)))
    return _file_name("+".join(kept).replace("=", "-"), "\n".join(kept), plain=not any("+" in text for text in kept))


def sweep_name(sweep: str | None, swept: dict[str, str], data: str) -> str:
    """A sweep's name: ``ablation-movielens_1m``, or of the keys that it varies.

    Args:
        sweep: name of the option ``sweep=``.
        swept: keys with several values, and these.
        data: name of the option ``data=``, unless it is swept.
    """
    what = sweep or "+".join(sorted(_key(key) for key in swept)) or "single"
    if "data" in swept:
        data = swept["data"].replace(",", "+")
    return _file_name(f"{what}-{data}", what + data, plain=True)


def refuse_twins(runs: list[Run]) -> None:
    """Two runs of one config would be one result counted twice, mostly under a wrong name.

    Raises:
        UserError: naming both.
    """
    seen: dict[str, Run] = {}
    for run in runs:
        twin = seen.setdefault(run.fingerprint, run)
        if twin is not run:
            one, other = (" ".join(o for o in r.overrides if o not in s.overrides) for r, s in ((twin, run), (run, twin)))
            raise UserError(
                f"{one or twin.folder.name} and {other or run.folder.name} are the same run: leave out one, or what unites them"
            )


@contextmanager
def exclusive(folder: Path) -> Iterator[int]:
    """Hold the lock of a run's folder; wait for a process that holds it. The system frees it when its holder dies.

    Yields:
        The open file, which a child process may inherit: then the lock is held until both have ended.
    """
    path = folder.parent / ".locks" / folder.name
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder.name}: another process is at it; waiting for its end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def quoted(text: str | Path) -> str:
    """A value that Hydra's grammar takes as it is."""
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def set_aside(folder: Path) -> Path:
    """Move a run of another config out of its sweep, so that no report mixes them: to ``<sweep>.earlier``."""
    earlier = folder.parent.with_name(f"{folder.parent.name}.earlier") / f"{folder.name}@{time.strftime('%Y%m%d-%H%M%S')}"
    earlier.parent.mkdir(exist_ok=True)
    while earlier.exists():
        earlier = earlier.with_name(f"{earlier.name}_")
    return folder.rename(earlier)


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file of ours without fields that do not fit, empty if there is none or it is damaged."""
    try:
        return fitting(read_json(path))
    except (OSError, ValueError):
        return {}


def estimate_seconds(runs: list[Run], output_dir: Path) -> tuple[list[float | None], int]:
    """How long each run may take: as long as finished ones of the same overrides, else of the same model and data.

    Returns:
        Median seconds for each run, None where nothing like it has finished, and how many finished runs were looked at.
    """
    like: dict[Any, list[float]] = {}
    records = [read_record(path) for path in output_dir.glob("**/metrics.json")]
    records = [record for record in records if "wall_seconds" in record]
    for record in records:
        for key in (_kind(record.get("overrides", [])), (record.get("model"), record.get("data"))):
            like.setdefault(key, []).append(record["wall_seconds"])
    found = [like.get(_kind(run.overrides)) or like.get((run.model, run.data)) for run in runs]
    return [sorted(seconds)[len(seconds) // 2] if seconds else None for seconds in found], len(records)


def _kind(overrides: Iterable[str]) -> frozenset[str]:
    return frozenset(override for override in overrides if not _is_within(_key(override), (*WITHOUT_EFFECT, "seed")))


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~").replace("/", ".").split("@")[0]


def _is_within(key: str, roots: Iterable[str]) -> bool:
    return any(key == root or key.startswith(f"{root}.") for root in roots)


def _file_name(text: str, exact: str, plain: bool) -> str:
    name = re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII) or "default"
    if plain and name == (text or "default") and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}@{hashlib.sha256(exact.encode()).hexdigest()[:10]}"
