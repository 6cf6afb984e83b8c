"""Paths, globs and folders of a user's own tables."""

import difflib
import glob
import os
import re
from functools import partial
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

from twotower.errors import UserError, results

COMPRESSED = (".gz", ".zst", ".xz")
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|", ".txt": "\t", ".dat": ","}
KINDS = {
    **dict.fromkeys(SEPARATORS, "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON lines"),
    **dict.fromkeys((".parquet", ".pq"), "Parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "Arrow"),
}
PARTITION = re.compile(r"([^=]+)=(.*)")  # a folder that holds the rows of one value
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # of such a folder
WILDCARDS = "*?["


def find(setting: str, patterns: str | list[str], data_dir: Path) -> list[Path]:
    """The files of a setting, below ``data_dir`` or else below the working folder.

    Raises:
        UserError: for patterns that have no file, or stand for a pipe.
    """
    listed = [patterns] if isinstance(patterns, str) else patterns
    found = results(partial(_find, setting, pattern, data_dir) for pattern in listed)
    return [path for paths in found for path in paths]


def _find(setting: str, pattern: str, data_dir: Path) -> list[Path]:
    paths = matches(pattern, data_dir)
    if not paths:
        for base in (data_dir, Path.cwd()):
            if (base / pattern).is_dir():
                raise UserError(
                    f"{base / pattern} is a folder without data: its files need one of the endings "
                    f"{', '.join(KINDS)}; hidden ones and those that begin with _ do not count"
                )
        raise UserError(
            f"{setting}={pattern}: there is no such file below {data_dir} or "
            f"{Path.cwd()}{_nearby(pattern, data_dir)}"
        )
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is not an ordinary file: give files or a folder in {setting}")
    return paths


def matches(pattern: str, data_dir: Path) -> list[Path]:
    """The files of a path or glob, those below where it is a folder.

    Hidden files and those that begin with ``_``, such as ``_SUCCESS`` of Spark, are left out.
    """
    for base in (data_dir, Path.cwd()):
        exact = base / pattern
        if exact.exists():
            return _files_of(exact)
        root = base.joinpath(*_fixed(pattern))
        paths = [Path(path) for path in sorted(glob.glob(str(exact), recursive=True))]  # noqa: PTH207 - absolute patterns too
        paths = [path for path in paths if not _is_left_out(path, root)]
        files = dict.fromkeys(file for path in paths for file in _files_of(path))
        if files:
            return list(files)
    return []


def _fixed(pattern: str) -> list[str]:
    """The parts of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    return list(takewhile(lambda part: not any(sign in part for sign in WILDCARDS), parts))


def _is_left_out(path: Path, root: Path) -> bool:
    return any(part[0] in "._" for part in path.relative_to(root).parts)


def _files_of(path: Path) -> list[Path]:
    """The path itself, or of a folder the files with data below it, also behind links."""
    if not path.is_dir():
        return [path]
    found, entered = [], set()
    for folder, below, names in os.walk(path, followlinks=True):
        if os.path.realpath(folder) in entered:  # a link to a folder above
            below.clear()
            continue
        entered.add(os.path.realpath(folder))
        files = (Path(folder, name) for name in names)
        found += [file for file in files if ending_of(file) in KINDS and file.is_file()]
    return sorted(file for file in found if not _is_left_out(file, path))


def ending_of(path: Path) -> str:
    """The ending that tells what a file is, before ``.gz`` and the like; empty without one."""
    return next((end.lower() for end in path.suffixes[::-1] if end not in COMPRESSED), "")


def partitions(patterns: str | list[str], data_dir: Path, path: Path) -> dict[str, str | None]:
    """Columns that the folders of a file hold, as in ``clicks/day=2026-01-31/part-0.parquet``.

    Args:
        patterns: that the file was found by; folders that they name do not count.
        data_dir: see :func:`find`.
        path: of the file.
    """
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for base in (data_dir, Path.cwd()):
            root = base.joinpath(*_fixed(pattern))
            if root != path and path.is_relative_to(root):
                folders = path.relative_to(root).parts[:-1]
                pairs = filter(None, map(PARTITION.fullmatch, folders))
                return {
                    unquote(key): None if value == NO_VALUE else unquote(value)
                    for key, value in (pair.groups() for pair in pairs)
                }
    return {}


def _nearby(pattern: str, data_dir: Path) -> str:
    folders = [(base / pattern).parent for base in (data_dir, Path.cwd())]
    names = [path.name for folder in folders for path in folder.glob("*") if path.is_file()]
    close = difflib.get_close_matches(Path(pattern).name, names, n=1)
    if not close:
        return ": check the path, or set paths.data_dir"
    return f" (did you mean {Path(pattern).with_name(close[0])}?)"
