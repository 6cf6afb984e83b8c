"""Finds run folders. Imports no torch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from twotower.errors import UserError
from twotower.run.run_folder import SIGNS
from twotower.wording import printable


def find(
    places: list[str], unread: list[OSError] | None = None, others: Sequence[Path] = ()
) -> dict[Path, str]:
    """Run folders at or below ``places`` (folders or globs), each with its name in the report.

    Args:
        places: each must hold a run.
        unread: filled with the errors of folders that cannot be opened, which are skipped.
        others: absolute folders; a place that holds one of these needs no run.

    Raises:
        UserError: if a place is missing or holds no run.
    """
    found: dict[Path, None] = {}
    for place in places:
        below = [folder.resolve() for root in roots(place) for folder in _run_folders(root, unread)]
        above = {path for other in others for path in (other, *other.parents)}
        if not below and not any(root.resolve() in above for root in roots(place)):
            raise UserError(
                f"runs={place}: there is no run folder; "
                "each run leaves .hydra and metrics.json in its own"
            )
        found |= dict.fromkeys(sorted(below))
    if not found:
        return {}
    common = os.path.commonpath([folder.parent for folder in found])
    return {folder: printable(str(folder.relative_to(common))) for folder in found}


def roots(place: str) -> list[Path]:
    """The folder of this name, or those that match it as a glob."""
    path = Path(place)
    return [path] if path.exists() else sorted(Path(path.anchor).glob(place.lstrip("/")))


def _run_folders(root: Path, unread: list[OSError] | None) -> Iterator[Path]:
    """``root``, or the run folders nearest below it; links are followed, in circles once."""
    seen = set()
    refused = None if unread is None else unread.append
    for folder, inner, files in os.walk(root, onerror=refused, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
        elif any(name in SIGNS for name in (*inner, *files)):
            inner.clear()
            yield Path(folder)
        seen.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
