"""``manifest.json``: what an export is, and the checksum of each of its files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from twotower.types import UserError

FILE = "manifest.json"
FORMAT_VERSION = 1  # raise it when a reader of the present version would go wrong
BLOCK = 1 << 20


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write the manifest over all other files, as the last act."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    files = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in paths}
    (folder / FILE).write_text(json.dumps({"format_version": FORMAT_VERSION, **record, "files": files}, indent=1) + "\n")


def check(folder: Path) -> dict[str, Any]:
    """Read the manifest and compare every file with it.

    Raises:
        UserError: for a folder without manifest, a newer format, and a missing, truncated or changed file, which is named.
    """
    record = read(folder)
    for name, expected in record["files"].items():
        path = folder / name
        again = "export again with force=true"
        if not path.is_file():
            raise UserError(f"{path} is missing: {again}")
        size = path.stat().st_size
        if size < expected["bytes"]:
            raise UserError(f"{path} is truncated, {size:,} of {expected['bytes']:,} bytes: {again}")
        if _sha256(path) != expected["sha256"]:
            raise UserError(f"{path} is not the file that was exported, its SHA-256 differs: {again}")
    return record


def read(folder: Path) -> dict[str, Any]:
    """The manifest alone.

    Raises:
        UserError: if there is none, it is damaged, or its format is newer than this version reads.
    """
    path = folder / FILE
    try:
        record = json.loads(path.read_text())
        version, _ = record["format_version"], record["files"].items()
    except FileNotFoundError:
        raise UserError(f"{folder} is no export: it has no {FILE}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({str(error).splitlines()[0]}): export again with force=true") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, and this version of the project reads up to {FORMAT_VERSION}: update it"
        )
    return record


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
