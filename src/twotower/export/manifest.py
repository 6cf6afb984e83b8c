"""``manifest.json``: what an export is, and the checksum of each of its files."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twotower.errors import UserError
from twotower.files import read_json, sha256
from twotower.wording import printable

FILE = "manifest.json"
KIND = "twotower export"
FORMAT_VERSION = 1  # raise it when a reader of the present version would go wrong
MAX_BYTES = 64 << 20  # of a manifest
VOCABULARIES = "vocabularies"
NAMES = re.compile(  # of all files that an export can hold, below its folder
    r"(user|item)_tower\.(onnx|onnx\.data|safetensors)|(user|item)_vectors\.parquet|users\.parquet"
    r"|index\.faiss|recall_latency\.png|README\.md|vocabularies/(user|item)\.[^/\x00-\x1f\x7f]+\.parquet"
)


class _File(BaseModel):
    model_config = ConfigDict(strict=True)
    bytes: int = Field(ge=0, lt=2**63)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Manifest(BaseModel):
    """What every reader relies on."""

    model_config = ConfigDict(strict=True)
    format_version: int = Field(ge=1)
    kind: Literal["twotower export"] = "twotower export"  # exports of earlier versions have none
    model: str
    data: str
    files: dict[Annotated[str, Field(max_length=300)], _File] = Field(min_length=1)


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write the manifest over all other files, as the last act."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in paths
    }
    whole = {"kind": KIND, "format_version": FORMAT_VERSION, **record, "files": files}
    (folder / FILE).write_text(json.dumps(whole, indent=1) + "\n")


def check(folder: Path) -> dict[str, Any]:
    """Read the manifest and compare every file with it; no other file is opened, and no link followed.

    Raises:
        UserError: for a folder without manifest, a newer format, an odd manifest, and a missing, truncated or changed file,
            which is named.
    """
    record = read(folder)
    for name, expected in record["files"].items():
        path = folder / name
        again = "export again with force=true"
        if path.is_symlink() or path.parent.is_symlink() and path.parent != folder:
            raise UserError(
                f"{path} is a link or lies behind one: put the exported file itself there"
            )
        if not path.is_file():
            raise UserError(f"{path} is missing: {again}")
        size = path.stat().st_size
        if size < expected["bytes"]:
            raise UserError(
                f"{path} is truncated, {size:,} of {expected['bytes']:,} bytes: {again}"
            )
        if size > expected["bytes"] or sha256(path) != expected["sha256"]:
            raise UserError(
                f"{path} is not the file that was exported, its SHA-256 differs: {again}"
            )
    return record


def read(folder: Path) -> dict[str, Any]:
    """The manifest alone.

    Raises:
        UserError: if there is none, it is damaged or not of an export, or its format is newer than this version reads.
    """
    path = folder / FILE
    try:
        if path.is_symlink():
            raise ValueError("it is a link")
        record = read_json(path, MAX_BYTES)
        version = record.get("format_version") if isinstance(record, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, and this version of the project reads up to {FORMAT_VERSION}: update it"
            )
        _Manifest.model_validate(record)
        if odd := [name for name in record["files"] if not NAMES.fullmatch(name)]:
            raise ValueError(f"no export holds a file called {odd[0]!r}")
    except FileNotFoundError:
        raise UserError(f"{folder} is no export: it has no {FILE}") from None
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = printable(_reason(error))[:200]
        raise UserError(
            f"{path} is damaged or of no export ({reason}): move the folder away and export again"
        ) from error
    return record


def refuse_others(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but the files of an export.

    Raises:
        UserError: see :func:`read`, and for other files, folders and links, which are named.
    """
    own = {*read(folder)["files"], FILE}
    others = [name for name in _content(folder) if name not in own]
    if others:
        named = ", ".join(printable(name)[:60] for name in others[:3]) + (
            ", …" if len(others) > 3 else ""
        )
        raise UserError(
            f"{folder} holds what is of no export, and is not replaced: {named}; move that away, or set output="
        )


def _content(folder: Path) -> Iterator[str]:
    """Names below a folder: of ordinary files as the manifest has them, of anything else with a slash at the end."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=False):
                yield entry.name
            elif entry.name == VOCABULARIES and entry.is_dir(follow_symlinks=False):
                yield from (f"{VOCABULARIES}/{name}" for name in _content(folder / VOCABULARIES))
            else:
                yield f"{entry.name}/"


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return str(error.strerror if isinstance(error, OSError) else error).splitlines()[0]
