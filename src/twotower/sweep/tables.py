"""Tables of a sweep's plan and of its outcome."""

import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from twotower.sweep.fused_plan import Pass, trains_on_gpu
from twotower.sweep.plan import UNPREPARED, Run, estimate_seconds
from twotower.wording import PlainConsole, clip, duration, masked, printable, shown_path, typed

STYLES = {"done": "green", "failed": "red", "new": ""}
OTHER_STYLE = "yellow"
IN_PASSES = (
    "Times are those of runs trained one after the other, unless such runs of a pass have finished"
)
ON_A_CPU = (
    "No NVIDIA GPU is used: on a CPU a pass takes 1.2 to 1.6 times as long as its runs one after "
    "the other"
)


def print_start(runs: list[Run]) -> None:
    """Print the sweep's folder, and how many of its runs are done."""
    done = sum(run.status == "done" for run in runs)
    print(f"{_counted(runs)} in {shown_path(runs[0].folder.parent)}, {done} done", flush=True)


def how_to_continue(runs: list[Run]) -> str:
    """How much is done, and the command for the rest."""
    done = sum(run.status == "done" for run in runs)
    return f"{done} of {_counted(runs)} done; {continue_with()}"


def continue_with() -> str:
    """The command that goes on with a sweep: the one that started it."""
    given = sys.argv[2:] if sys.argv[1:2] == ["train"] else sys.argv[1:]  # of twotower train
    command = masked(f"{typed('train')} {shlex.join(given)}")
    return f"continue with: {command}"


def print_plan(
    runs: list[Run], output_dir: Path, at_once: int, passes: Sequence[Pass] = ()
) -> None:
    """Print each run with its state, how many there are, and how long they may take.

    Args:
        runs: of the sweep.
        output_dir: where finished runs are looked for.
        at_once: how many are run at a time.
        passes: which runs a launcher trains in one pass; empty for other launchers.
    """
    together = [one for one in passes if not one.reason]
    number_of = {job: str(number) for number, one in enumerate(together, 1) for job in one.jobs}
    estimates, source = estimates_of(runs, output_dir, number_of)
    keys = _varied(runs)
    table = _table(runs, keys)
    if passes:
        table.add_column("pass", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("about", justify="right", no_wrap=True)
    todo: list[float | None] = []
    for place, (run, seconds) in enumerate(zip(runs, estimates, strict=True)):
        about = in_pass = ""
        if run.status != "done":
            todo.append(seconds)
            about = "?" if seconds is None else duration(seconds)
            in_pass = number_of.get(place, "alone")
        values = [*_values(run, keys), *[in_pass][: len(passes)]]
        table.add_row(str(place + 1), *values, _styled(run.status), about)
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
    for line in _pass_lines(runs, keys, passes):
        console.print(line, soft_wrap=True)


def _pass_lines(runs: list[Run], keys: list[str], passes: Sequence[Pass]) -> list[str]:
    """Which runs are trained in one pass, and why others are not."""
    lines: list[str] = []
    alone: dict[str, list[str]] = {}
    for one in passes:
        if one.reason:
            alone.setdefault(one.reason, []).extend(str(job + 1) for job in one.jobs)
            continue
        first = runs[one.jobs[0]]
        pairs = [f"model={first.model}", f"data={first.data}"]
        for key in keys:
            values = dict.fromkeys(runs[job].settings.get(key, "") for job in one.jobs)
            pairs.append(f"{key}={clip(','.join(values), 60)}")
        kept = dict(pair.split("=", 1) for pair in pairs)  # a varied model or data is once there
        what = " ".join(f"{key}={value}" for key, value in kept.items())
        number = len(one.jobs)
        some = f"{number} runs in one" if number > 1 else "1 run, as in the pass that it began in"
        lines.append(f"pass {len(lines) + 1}: {some}, {what}")
    for reason, numbers in alone.items():
        lines.append(f"alone: {clip(', '.join(numbers), 60)}, because {printable(reason)}")
    if passes and not all(one.reason for one in passes):
        lines.append(IN_PASSES if trains_on_gpu(runs[passes[0].jobs[0]].config) else ON_A_CPU)
    return lines


def estimates_of(
    runs: list[Run], output_dir: Path, in_passes: Collection[int]
) -> tuple[list[float | None], str]:
    """Seconds of each run, from finished runs or else a few steps, and where they come from."""
    estimates, num_finished = estimate_seconds(runs, output_dir, in_passes)
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
    """Keys with different values in different runs; the seed last.

    Left out is what the variant decides, as in the runs that confirm a search.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    varied = []
    for key in keys:
        pairs = {(run.settings.get("variant"), run.settings.get(key)) for run in runs}
        of_variant = len(pairs) == len({variant for variant, _ in pairs})
        if len({value for _, value in pairs}) > 1 and (
            not of_variant or key in ("variant", "seed")
        ):
            varied.append(key)
    return sorted(varied, key=lambda key: key == "seed")


def _values(run: Run, keys: list[str]) -> list[str]:
    return [run.settings.get(key, "") for key in keys]


def _styled(status: str) -> Text:
    return Text(status, style=STYLES.get(status, OTHER_STYLE))
