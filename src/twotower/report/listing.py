"""``src/report.py list``: every run with its settings, state, result and next command.

Imports no torch, so the list is there at once.
"""

import time
from collections import Counter
from pathlib import Path

from omegaconf import DictConfig
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from twotower.report.entry import Entry, is_over, read, sweep_command
from twotower.report.folders import find
from twotower.run.run_folder import RunFolder
from twotower.wording import PlainConsole, duration, number, printable, shown_path, typed

STYLES = {"finished": "green", "pruned": "", "running": "cyan", "interrupted": "yellow"}
OTHER_STYLE = "red"  # failed, damaged
WIDEST = 120
STATUS, VALUE, WRITTEN, GAP = 11, 5, 10, 2  # widths of columns
NEXT = "next: {recommend} ckpt_path=<run folder> user_id=…, likewise evaluate and export"


def show(config: DictConfig) -> None:
    """Print all runs by the folder that they are in, newest last.

    Raises:
        UserError: if there is no run.
    """
    places = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    unread: list[OSError] = []
    groups: dict[Path, list[Entry]] = {}
    for folder in find(places, unread):
        groups.setdefault(folder.parent, []).append(read(RunFolder(folder), config.compare))
    for entries in groups.values():
        entries.sort(key=lambda entry: entry.written)
    console = PlainConsole()
    console.width = min(console.width, WIDEST)
    console.print(_row(f"newest last, {config.compare}", "status", "val", "test", "written"))
    for parent in sorted(groups, key=lambda parent: groups[parent][-1].written):
        _print_group(parent, groups[parent], console)
    for error in unread:
        line = f"{printable(str(error.filename))} cannot be read: {error.strerror}"
        console.print(line, style=OTHER_STYLE, soft_wrap=True)
    counts = Counter(entry.status for entries in groups.values() for entry in entries)
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"\n{counts.total()} run{'s' * (counts.total() > 1)}: {listed}")
    if counts["finished"]:
        console.print(NEXT.format(recommend=typed("recommend")), style="dim", soft_wrap=True)


def _print_group(parent: Path, entries: list[Entry], console: PlainConsole) -> None:
    """The runs of one folder, with the settings that all of them have in its heading."""
    known = [entry.settings for entry in entries if entry.model]
    shared: list[str] = []
    if len(known) > 1:
        shared = [text for text in known[0] if all(text in settings for settings in known)]
    console.print(Text(f"\n{shown_path(parent)}", "bold"), soft_wrap=True)
    if shared:
        console.print(f"all with {' '.join(shared)}", style="dim")
    sweep = sweep_command(parent)
    for entry in entries:
        _print_entry(entry, shared, sweep, console)
    if sweep and any(entry.is_left for entry in entries) and not is_over(parent):
        console.print(f"go on: {sweep}", soft_wrap=True)


def _print_entry(entry: Entry, shared: list[str], sweep: str, console: PlainConsole) -> None:
    name = Text(f"{entry.model} on {entry.data}" if entry.model else "unknown", "bold")
    settings = " ".join(text for text in entry.settings if text not in shared)
    room = console.width - STATUS - 2 * VALUE - WRITTEN - 5 * GAP
    fits = len(name) + GAP + len(settings) <= room
    if fits:
        name.append(f"{' ' * GAP}{settings}", "not bold")
    status = Text(entry.status, STYLES.get(entry.status, OTHER_STYLE))
    ago = f"{duration(time.time() - entry.written)} ago" if entry.written else ""
    console.print(_row(name, status, _cell(entry.val), _cell(entry.test), ago))
    if not fits:
        console.print(Padding(settings, (0, 0, 0, 2)))
    if entry.note:
        console.print(f"  {entry.note}", style=OTHER_STYLE, soft_wrap=True)
    console.print(f"  {shown_path(entry.folder.path)}", style="dim", soft_wrap=True)
    if entry.is_left and not sweep:
        console.print(f"  go on: {entry.command}", soft_wrap=True)


def _row(name: str | Text, status: str | Text, val: str, test: str, ago: str) -> Table:
    """One line; its columns have the same places in every table."""
    row = Table.grid(padding=(0, GAP, 0, 0), expand=True)
    row.add_column(ratio=1, overflow="fold")
    row.add_column(width=STATUS, no_wrap=True)
    for width in (VALUE, VALUE, WRITTEN):
        row.add_column(width=width, justify="right", no_wrap=True)
    row.add_row(name, status, val, test, ago)
    return row


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)
