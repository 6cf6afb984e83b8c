"""Writes the data card: figures as JSON, plots as PNG, a summary on the screen."""

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
from twotower.data.prepare.store import print_remarks
from twotower.errors import UserError
from twotower.files import whole_file
from twotower.plotting import save_figure
from twotower.wording import PlainConsole


def describe(
    data: RetrievalDataModule, name: str, force: bool, output: str | None
) -> dict[str, Any]:
    """Prepare the data where needed, then write and print the card.

    Args:
        data: as ``conf/data`` builds it, not set up.
        name: the option of ``conf/data``.
        force: prepare anew even if the data are there.
        output: a folder for a copy of the card.

    Returns:
        The card's figures.

    Raises:
        UserError: for missing or malformed raw files, a damaged cache, and an ``output`` that is a
            file.
    """
    if output and Path(output).is_file():
        raise UserError(f"output={output} is a file: name a folder for card.json and card.png")
    before = _written_at(data.preparation.folder)
    prepared = data.preparation.load(force)
    was_there = _written_at(data.preparation.folder) == before
    if was_there:  # else preparation has printed them
        print_remarks(prepared.meta)
    with PlainConsole(stderr=True).status("describing the data"):
        card = measure(prepared, data.options)
        figures = {**_about(data, name, prepared.meta), **card.figures}
        figures["findings"] = findings(figures)
        picture = io.BytesIO()
        save_figure(draw(figures, card.curves, prepared.meta["times"]), picture)
    text = json.dumps(figures, indent=1) + "\n"
    files = {"card.json": text.encode(), "card.png": picture.getvalue()}
    paths = [data.preparation.folder]
    if os.access(data.preparation.folder, os.W_OK):  # a cache of somebody else may be read-only
        with data.preparation.alone():
            paths += _write(data.preparation.folder, files)
    if output:
        Path(output).mkdir(parents=True, exist_ok=True)
        paths += _write(Path(output), files)
    console = PlainConsole()
    show(figures, console)
    there_already = ", there already" if was_there else ""
    console.print(f"\nprepared data{there_already}:", style="bold")
    for path in paths:
        console.print(str(path), soft_wrap=True)
    return figures


def _write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        with whole_file(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in files]


def _written_at(folder: Path) -> int:
    """Time at which the data were written; 0 for never."""
    path = folder / "meta.json"
    return path.stat().st_mtime_ns if path.exists() else 0


def _about(data: RetrievalDataModule, name: str, meta: dict[str, Any]) -> dict[str, Any]:
    options = data.options
    return {
        "data": name,
        "note": meta["note"],
        "remarks": meta["remarks"],
        "options": {
            "split": {"name": type(options.split).__name__, **vars(options.split)},
            "filters": options.filters.plain(),
            "mask_seen": data.mask_seen,
            "history_length": options.history_length,
            "group_shares": list(options.group_shares),
            "reader": data.reader.options(),
        },
        "fingerprint": meta["fingerprint"],
        "folder": str(data.preparation.folder),
        "preparation": {key: meta.get(key) for key in ("seconds", "stages")},
    }
