"""Prepares a data set and describes it: figures as JSON, plots as a PNG sheet, both in words on the screen."""

import io
import json
import os
from pathlib import Path
from typing import Any

from twotower.data.card.console import show
from twotower.data.card.figures import measure
from twotower.data.card.findings import findings
from twotower.data.card.sheet import draw
from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError
from twotower.plotting import save_figure
from twotower.wording import PlainConsole


def describe(
    data: RetrievalDataModule, name: str, force: bool, output: str | None
) -> dict[str, Any]:
    """Prepare where that is needed, then write and print the card.

    Args:
        data: as ``conf/data`` builds it, not set up.
        name: what the command line calls these data.
        force: prepare anew even if the data are there.
        output: a folder for a copy of the card.

    Returns:
        The card's figures.

    Raises:
        UserError: for missing or malformed raw files, a damaged cache, and an ``output`` that is no folder.
    """
    if output and Path(output).exists() and not Path(output).is_dir():
        raise UserError(f"output={output} is a file: name a folder for card.json and card.png")
    folder = data.folder
    before = _stamp(folder)
    if force:
        data.preparation.run(force)
    prepared = data.preparation.load()
    was_there = _stamp(folder) == before
    card = measure(prepared, data.options)
    figures = {**_about(data, name, folder, prepared.meta), **card.figures}
    figures["findings"] = findings(figures)
    picture = io.BytesIO()
    save_figure(draw(figures, card.curves, prepared.meta["times"]), picture)
    files = {
        "card.json": json.dumps(figures, indent=1).encode() + b"\n",
        "card.png": picture.getvalue(),
    }
    console = PlainConsole()
    show(figures, console)
    console.print(
        "\nprepared data, there already:" if was_there else "\nprepared data:", style="bold"
    )
    for path in [folder, *_write(files, folder, output)]:
        console.print(str(path), soft_wrap=True)
    return figures


def _stamp(folder: Path) -> int:
    """Time at which the data were written; 0 for never."""
    path = folder / "meta.json"
    return path.stat().st_mtime_ns if path.exists() else 0


def _about(
    data: RetrievalDataModule, name: str, folder: Path, meta: dict[str, Any]
) -> dict[str, Any]:
    filters, split = data.options.filters._asdict(), data.options.split
    return {
        "data": name,
        "note": meta["note"],
        "remarks": meta["remarks"],
        "options": {
            "split": {"name": type(split).__name__, **vars(split)},
            "filters": filters,
            "mask_seen": data.mask_seen,
            "history_length": data.options.history_length,
            "group_shares": list(data.options.group_shares),
            "reader": data.reader.options(),
        },
        "fingerprint": meta["fingerprint"],
        "folder": str(folder),
        "preparation": {
            name: meta.get(name) for name in ("seconds", "stages", "peak_memory_bytes")
        },
    }


def _write(files: dict[str, bytes], folder: Path, output: str | None) -> list[Path]:
    """Into the cache, unless it is another's and read-only, and into ``output``; each whole or absent."""
    targets = [folder] if os.access(folder, os.W_OK) else []
    if output:
        Path(output).mkdir(parents=True, exist_ok=True)
        targets.append(Path(output))
    paths = [target / name for target in targets for name in files]
    for path in paths:
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_bytes(files[path.name])
        partial.replace(path)
    return paths
