"""Run folders: which there are, what each holds, and why one cannot be counted."""

import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from twotower import settings
from twotower.types import UserError

SIGNS = (".hydra", "metrics.json", "failed.json", "metrics.csv")  # any of them makes a folder a run folder
NEEDED = {"model": str, "data": str, "data_fingerprint": str, "seed": int, "overrides": list, "test": dict}


class Run(NamedTuple):
    """A finished run.

    Attributes:
        folder: where it is.
        name: the folder's name for people: as given and below, never an absolute path of its own.
        record: ``metrics.json``.
        settings: see :func:`twotower.settings.flat`.
    """

    folder: Path
    name: str
    record: dict[str, Any]
    settings: dict[str, settings.Value]

    def without(self, keys: list[str]) -> "Run":
        """The run as if nobody knew of these settings."""
        kept = {key: value for key, value in self.settings.items() if key not in keys}
        overrides = [override for override in self.record["overrides"] if override.lstrip("+~").split("=")[0] not in keys]
        return self._replace(settings=kept, record={**self.record, "overrides": overrides})


class LeftOut(NamedTuple):
    """A run folder that is not counted, and why."""

    name: str
    reason: str


def find(places: list[str]) -> list[Path]:
    """Run folders at or below ``places``, folders or globs, in order of their names; none twice.

    Raises:
        UserError: if a place is not there or holds no run.
    """
    found: dict[Path, None] = {}
    for place in places:
        roots = [Path(place)] if Path(place).exists() else sorted(Path().glob(place) if place[:1] != "/" else _absolute(place))
        below = [folder for root in roots for folder in _run_folders(root)]
        if not below:
            raise UserError(f"runs={place}: there is no run folder; a run leaves .hydra and metrics.json in its own")
        found |= dict.fromkeys(below)
    return list({folder.resolve(): folder for folder in found}.values())


def _absolute(place: str) -> list[Path]:
    return list(Path("/").glob(place.lstrip("/")))


def _run_folders(root: Path) -> list[Path]:
    """``root`` itself, or the run folders nearest below it."""
    if not root.is_dir():
        return []
    if any((root / sign).exists() for sign in SIGNS):
        return [root]
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder for path in inner for folder in _run_folders(path)]


def read(folder: Path, name: str, metrics: list[str]) -> Run | LeftOut:
    """A finished run with all of ``metrics``, or why it is none."""
    if not (folder / "metrics.json").exists():
        return LeftOut(name, _unfinished(folder))
    try:
        record = dict(json.loads((folder / "metrics.json").read_text()))
        missing = [key for key, kind in NEEDED.items() if not isinstance(record.get(key), kind)]
        found = _settings(folder, record)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return LeftOut(name, f"damaged: metrics.json cannot be read ({_line(error)})")
    if missing:
        return LeftOut(name, f"damaged: metrics.json lacks {', '.join(missing)}")
    if record.get("status", "completed") != "completed":
        return LeftOut(name, f"its status is {record['status']}")
    if found is None:
        return LeftOut(name, "its settings are not known: neither metrics.json nor .hydra/config.yaml has them")
    unusable = [metric for metric in metrics if not _is_number(record["test"].get(metric))]
    if unusable:
        return LeftOut(name, f"no test value of {', '.join(unusable)}")
    return Run(folder, name, record, found)


def _unfinished(folder: Path) -> str:
    if (folder / "failed.json").exists():
        try:
            return f"failed: {_line(json.loads((folder / 'failed.json').read_text())['error'])}"
        except (OSError, ValueError, KeyError, TypeError):
            return "failed, and failed.json is damaged"
    half = " (metrics.json was being written)" if (folder / ".metrics.json.partial").exists() else ""
    newest = max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=folder.stat().st_mtime)
    return f"not finished{half}: running, or killed; last written {_ago(time.time() - newest)} ago"


def _settings(folder: Path, record: dict[str, Any]) -> dict[str, settings.Value] | None:
    """From the record; of runs older than that from the composed config. Null is as good as unset: a setting may be younger."""
    path = folder / ".hydra" / "config.yaml"
    if "settings" in record:
        found = dict(record["settings"])
    elif path.exists():
        plain: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        found = settings.flat(plain)
    else:
        return None
    return {key: value for key, value in found.items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]
