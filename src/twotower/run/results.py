"""The table of a run's metrics, and the versions and memory that its record names."""

import importlib.metadata
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from twotower.training.evaluation import SHARES
from twotower.wording import PlainConsole, number, printable, shown_path

ROOT = Path(__file__).parents[3]
PACKAGES = (
    "twotower",
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "polars",
    "numpy",
)
GROUPS = ("head", "middle", "tail", "warm", "cold", "cold_user")
COLUMNS = ("val", "test", "popularity", *GROUPS, "oracle")
HEADERS = {"cold_user": "cold\nuser"}


def print_table(record: dict[str, Any], where: Path) -> None:
    """Print a row for each metric, then the run's folder.

    Columns are validation, test, popularity, the groups of the test, and the oracle where there is
    one. The last groups are left out where the terminal has no room for them.
    """
    console = PlainConsole()
    names, rows = as_rows(record)
    if not rows:  # nothing was measured
        console.print(shown_path(where), soft_wrap=True)
        return
    rows = _without_repeats(rows)
    columns = dict(zip(map(str, names), map(list, zip(*rows, strict=True)), strict=True))
    if columns.get("popularity") == columns.get("test"):  # the model is popularity
        columns.pop("popularity", None)
    groups = [name for name in columns if name in GROUPS]
    left_out: list[str] = []
    while _width(table := _table(record, columns, left_out)) > console.width and groups:
        left_out.insert(0, groups.pop())
        del columns[left_out[0]]
    console.print(table)
    # in one piece, as it is copied into the next command
    console.print(shown_path(where), soft_wrap=True)


def _table(record: dict[str, Any], columns: dict[str, list[Any]], left_out: list[str]) -> Table:
    title = f"{record['model']} on {record['data']}, seed {record['seed']}"
    caption = _caption(record)
    if left_out:
        caption += f"; also in metrics.json: {', '.join(left_out)}"
    table = Table(
        box=SIMPLE_HEAD, padding=(0, 0), pad_edge=False, title=Text(title), caption=Text(caption)
    )
    for name in columns:
        if name == "metric":
            table.add_column(name, no_wrap=True)
        else:
            style = "bold" if name == "test" else None
            header = HEADERS.get(name, name)
            table.add_column(header, justify="right", no_wrap=True, style=style)
    cells = [[_cell(value) for value in values] for values in columns.values()]
    if "oracle" in columns:
        table.add_column("of\noracle", justify="right", no_wrap=True)
        pairs = zip(columns["test"], columns["oracle"], strict=True)
        cells.append([f"{test / oracle:.0%}" if oracle else "" for test, oracle in pairs])
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def _width(table: Table) -> int:
    wide = PlainConsole(width=10_000)
    return wide.measure(table).maximum


def _without_repeats(rows: list[list[Any]]) -> list[list[Any]]:
    """Leave out metrics that equal an earlier one everywhere: recall, with one target per user."""
    kept: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        kept.setdefault(tuple(row[1:]), row)
    return list(kept.values())


def as_rows(record: dict[str, Any]) -> tuple[list[str | int], list[list[Any]]]:
    """The same table as plain values: names of the columns, and a row for each metric."""
    values = {name: column for name, column in _columns(record).items() if column}
    names = [name for name in COLUMNS if name in values]
    metrics = values.get("test") or values.get("val") or {}
    return ["metric", *names], [
        [metric, *(values[name].get(metric) for name in names)] for metric in metrics
    ]


def peak_memory_bytes() -> int:
    """Peak memory: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute, and the commit of this project."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | _commit()


def _commit() -> dict[str, str]:
    """The commit, with ``-dirty`` if tracked files differ from it; empty of an installed package.

    An installed package may lie in a folder that belongs to another project's repository.
    """
    if not (ROOT / ".git").exists():
        return {}
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        run = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git, or a repository that it refuses
        return {}
    return {"commit": run.stdout.strip()}


def _columns(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """``val``, ``test`` and ``oracle`` of all users, and the groups of ``test`` (or ``val``)."""
    columns: dict[str, dict[str, float]] = {}
    for part in ("val", "test", "popularity", "oracle"):
        columns[part] = {
            key: value for key, value in (record.get(part) or {}).items() if _is_metric(key)
        }
    for key, value in (record.get("test") or record.get("val") or {}).items():
        if "/" in key:
            group, metric = key.split("/", 1)
            columns.setdefault(group, {})[metric] = value
    return columns


def _is_metric(key: str) -> bool:
    return "/" not in key and key not in SHARES


def _cell(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else number(value)


def _caption(record: dict[str, Any]) -> str:
    facts = [printable(record.get("data_note") or "")]
    if record.get("train_examples_per_second"):
        facts.append(
            f"epochs {record['epochs']}, {record['train_examples_per_second']:,.0f} positives/s"
        )
    zero = (record.get("test") or {}).get("zero_items", 0)
    if zero > 0:
        facts.append(f"{zero:.1%} of item vectors are zero and can never be found")
    hidden = (record.get("test") or record.get("val") or {}).get("hidden_targets", 0)
    if hidden > 0:
        facts.append(
            f"{hidden:.1%} of targets were seen before and are hidden (data.mask_seen=true): "
            "misses for every model"
        )
    return ", ".join(fact for fact in facts if fact)
