"""``manifest.json``: inputs, figures and the SHA-256 of each file of an export."""

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel

from twotower.errors import UserError
from twotower.files import read_json, sha256
from twotower.wording import printable

FILE = "manifest.json"
FORMAT_VERSION = 1  # raise it when older readers would misread the files


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("a name of a file outside the folder")
    return name


class _File(BaseModel):
    bytes: int
    sha256: str


class _Manifest(BaseModel):
    """The entries that every reader needs."""

    format_version: int
    model: str
    data: str
    files: dict[Annotated[str, AfterValidator(_inside)], _File]


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write the manifest after all other files."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    whole = {"format_version": FORMAT_VERSION, **record, "files": files}
    (folder / FILE).write_text(json.dumps(whole, indent=1) + "\n")


def check(folder: Path) -> dict[str, Any]:
    """Read the manifest and compare every file with it.

    Raises:
        UserError: see :func:`read`, and for a missing or changed file, which is named.
    """
    record = read(folder)
    for name, expected in record["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing: export again with force=true")
        found = path.stat().st_size
        if found != expected["bytes"] or sha256(path) != expected["sha256"]:
            raise UserError(
                f"{path} is damaged: {found:,} of {expected['bytes']:,} bytes, or another SHA-256 "
                "than at export: export again with force=true"
            )
    return record


def read(folder: Path) -> dict[str, Any]:
    """The manifest alone.

    Raises:
        UserError: if there is none, it is damaged, or its format is newer than this version reads.
    """
    path = folder / FILE
    try:
        record: dict[str, Any] = read_json(path)
        version = _Manifest.model_validate(record).format_version
    except FileNotFoundError:
        raise UserError(
            f"{folder} is not an export: it has no {FILE}: name another folder"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged, or is not from an export ({printable(str(error))[:200]}): "
            "move the folder away and export again"
        ) from error
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, and this version of the project reads up to "
            f"{FORMAT_VERSION}: update it"
        )
    return record
