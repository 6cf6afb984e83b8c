"""Paths and globs of a user's own tables."""

import difflib
import glob
from functools import partial
from pathlib import Path

from twotower.errors import UserError, results


def find(setting: str, patterns: str | list[str], data_dir: Path) -> list[Path]:
    """The files of a setting, below ``data_dir`` or else below the working folder.

    Raises:
        UserError: for patterns that have no file, or stand for a folder or a pipe.
    """
    listed = [patterns] if isinstance(patterns, str) else patterns
    found = results(partial(_find, setting, pattern, data_dir) for pattern in listed)
    return [path for paths in found for path in paths]


def _find(setting: str, pattern: str, data_dir: Path) -> list[Path]:
    paths = matches(pattern, data_dir)
    if not paths:
        raise UserError(
            f"{setting}={pattern}: there is no such file below {data_dir} or "
            f"{Path.cwd()}{_nearby(pattern, data_dir)}"
        )
    for path in paths:
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "not an ordinary file"
            raise UserError(f"{path} is {kind}: give files, such as {setting}='folder/*.csv'")
    return paths


def matches(pattern: str, data_dir: Path) -> list[Path]:
    """The paths of a path or glob, without those such as ``_SUCCESS`` that Spark adds."""
    for base in (data_dir, Path.cwd()):
        exact = base / pattern
        if exact.exists():
            return [exact]
        paths = [Path(path) for path in sorted(glob.glob(str(exact), recursive=True))]  # noqa: PTH207 - absolute patterns too
        if paths := [path for path in paths if not path.name.startswith("_")]:
            return paths
    return []


def _nearby(pattern: str, data_dir: Path) -> str:
    folders = [(base / pattern).parent for base in (data_dir, Path.cwd())]
    names = [path.name for folder in folders for path in folder.glob("*") if path.is_file()]
    close = difflib.get_close_matches(Path(pattern).name, names, n=1)
    if not close:
        return ": check the path, or set paths.data_dir"
    return f" (did you mean {Path(pattern).with_name(close[0])}?)"
