"""Paths and globs of a user's own tables."""

import difflib
import glob
from pathlib import Path

from twotower.errors import UserError


def find(setting: str, patterns: str | list[str], data_dir: Path) -> list[Path]:
    """The files of a setting, below ``data_dir`` or else below the working folder.

    Raises:
        UserError: if a pattern has no file, or is a folder, a pipe or a device.
    """
    found: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        paths = matches(pattern, data_dir)
        folders = [path for path in paths if path.is_dir()]
        if folders and len(folders) == len(paths):
            inside = sorted(
                {"".join(path.suffixes[-2:]) for path in folders[0].iterdir() if path.suffix}
            ) or [".csv"]
            raise UserError(
                f"{setting}={pattern} is a folder: give its files, {setting}='{pattern.rstrip('/')}/*{inside[0]}'"
            )
        if not paths:
            raise UserError(
                f"{setting}={pattern}: there is no such file below {data_dir} or {Path.cwd()}{_nearby(pattern, data_dir)}"
            )
        for path in paths:
            if not path.is_file() and not path.is_dir():
                raise UserError(
                    f"{setting}={pattern}: {path} is no ordinary file but a pipe or a device: write its content to a file"
                )
        found += [path for path in paths if path not in folders]
    return found


def matches(pattern: str, data_dir: Path) -> list[Path]:
    """What a path or glob stands for; files that begin with ``_`` are marks of the programs that wrote the shards.

    Raises:
        UserError: for a glob over the whole disk.
    """
    if "**" in Path(pattern).parts[:2] and Path(pattern).is_absolute():
        raise UserError(f"{pattern} would search the whole disk: name a folder before **")
    for base in (data_dir, Path.cwd()):
        exact = base / pattern
        if exact.exists():
            return [exact]
        paths = [Path(path) for path in sorted(glob.glob(str(exact), recursive=True))]  # noqa: PTH207 - absolute patterns too
        if paths := [path for path in paths if not path.name.startswith("_")]:
            return paths
    return []


def _nearby(pattern: str, data_dir: Path) -> str:
    near = [
        path
        for base in (data_dir, Path.cwd())
        for path in (base / pattern).parent.glob("*")
        if path.is_file()
    ]
    names = {path.name: path for path in near}
    close = difflib.get_close_matches(Path(pattern).name, names, n=1)
    return (
        f" (did you mean {Path(pattern).with_name(close[0])}?)"
        if close
        else ": check the path, or set paths.data_dir"
    )
