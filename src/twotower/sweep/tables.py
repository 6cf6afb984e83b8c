"""Tables of a sweep's plan and of its outcome."""

import shlex
import sys
from pathlib import Path

from rich.table import Table
from rich.text import Text

from twotower.sweep.plan import UNPREPARED, Run, estimate_seconds
from twotower.wording import PlainConsole, duration, masked, printable, shown_path, typed

STYLES = {"done": "green", "failed": "red", "new": ""}
OTHER_STYLE = "yellow"


def print_start(runs: list[Run]) -> None:
    """Print the sweep's folder, and how many of its runs are done."""
    done = sum(run.status == "done" for run in runs)
    print(f"{_counted(runs)} in {shown_path(runs[0].folder.parent)}, {done} done", flush=True)


def how_to_continue(runs: list[Run]) -> str:
    """How much is done, and the command for the rest: the one that started the sweep."""
    done = sum(run.status == "done" for run in runs)
    given = sys.argv[2:] if sys.argv[1:2] == ["train"] else sys.argv[1:]  # of twotower train
    command = masked(f"{typed('train')} {shlex.join(given)}")
    return f"{done} of {_counted(runs)} done; continue with: {command}"


def print_plan(runs: list[Run], output_dir: Path, at_once: int) -> None:
    """Print each run with its state, how many there are, and how long they may take."""
    estimates, source = _estimates(runs, output_dir)
    keys = _varied(runs)
    table = _table(runs, keys)
    table.add_column("status", no_wrap=True)
    table.add_column("about", justify="right", no_wrap=True)
    todo: list[float | None] = []
    for number, (run, seconds) in enumerate(zip(runs, estimates, strict=True), 1):
        about = ""
        if run.status != "done":
            todo.append(seconds)
            about = "?" if seconds is None else duration(seconds)
        table.add_row(str(number), *_values(run, keys), _styled(run.status), about)
    console = PlainConsole()
    console.print(table)
    folder = shown_path(runs[0].folder.parent)
    console.print(f"{_counted(runs)}, {len(todo)} to run, in {folder}", soft_wrap=True)
    known = [seconds for seconds in todo if seconds is not None]
    if known:
        total = sum(known) / len(known) * len(todo)
        parallel = f", {duration(total / at_once)} with {at_once} at a time" if at_once > 1 else ""
        console.print(f"About {duration(total)}{parallel}, from {source}", soft_wrap=True)
    elif todo:
        console.print(f"No estimate: {source}", soft_wrap=True)


def _estimates(runs: list[Run], output_dir: Path) -> tuple[list[float | None], str]:
    """Seconds of each run, from finished runs or else a few steps, and where they come from."""
    estimates, num_finished = estimate_seconds(runs, output_dir)
    finished = f"the finished runs among {num_finished} in {shown_path(output_dir)}"
    sources = [finished] * any(estimates)
    unknown = [
        number for number, run in enumerate(runs) if not estimates[number] and run.status != "done"
    ]
    reason = UNPREPARED
    if any(Path(runs[number].config.paths.cache_dir).is_dir() for number in unknown):
        from twotower.sweep.measure import NUM_STEPS, measure_seconds  # imports torch

        with PlainConsole(stderr=True).status("measuring a few steps"):
            measured, reason = measure_seconds([runs[number] for number in unknown])
        for number, seconds in zip(unknown, measured, strict=True):
            estimates[number] = seconds
        steps = f"{NUM_STEPS} measured steps of each variant (without early stopping)"
        sources += [steps] * any(measured)
    none = f"no run like these has finished in {shown_path(output_dir)}, and {reason}"
    return estimates, " and ".join(sources) or none


def print_outcome(runs: list[Run], metric: str) -> None:
    """Print each run's main metric and state, the reasons of failures, and the report's command."""
    keys = _varied(runs)
    table = _table(runs, keys)
    for name in (f"val {metric}", f"test {metric}", "status", "seconds"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    console = PlainConsole()
    failures = []
    for number, run in enumerate(runs, 1):
        status = run.status if run.status in ("done", "failed") else "unfinished"
        record = run.place.read_record() if status == "done" else {}
        values = [record.get(part, {}).get(metric) for part in ("val", "test")]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        seconds = f"{record['wall_seconds']:.0f}" if "wall_seconds" in record else ""
        table.add_row(str(number), *_values(run, keys), *cells, _styled(status), seconds)
        if status == "failed":
            what = " ".join(f"{key}={run.settings.get(key)}" for key in keys)
            reason = f" ({what}): {printable(run.place.read_error())}"
            failures.append(Text.assemble((f"{number} failed", "red"), reason))
    console.print(table)
    for failure in failures:
        console.print(failure, soft_wrap=True)
    if any(run.status == "done" for run in runs):
        folder = shown_path(runs[0].folder.parent)
        console.print(f"{typed('report')} runs={folder}", soft_wrap=True)


def _counted(runs: list[Run]) -> str:
    return f"{len(runs)} run{'s' * (len(runs) > 1)}"


def _table(runs: list[Run], keys: list[str]) -> Table:
    table = Table(pad_edge=False, title=runs[0].folder.parent.name)
    table.add_column("#", justify="right", no_wrap=True)
    short = [key.split(".")[-1] for key in keys]
    for key, name in zip(keys, short, strict=True):
        table.add_column(name if short.count(name) == 1 else key, overflow="fold")
    return table


def _varied(runs: list[Run]) -> list[str]:
    """Keys with different values in different runs; the seed last."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    varied = [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]
    return sorted(varied, key=lambda key: key == "seed")


def _values(run: Run, keys: list[str]) -> list[str]:
    return [run.settings.get(key, "") for key in keys]


def _styled(status: str) -> Text:
    return Text(status, style=STYLES.get(status, OTHER_STYLE))
