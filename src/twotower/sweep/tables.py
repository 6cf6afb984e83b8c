"""What a sweep shows: its plan, and what came of it."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from twotower.sweep.plan import Run, estimate_seconds
from twotower.wording import PlainConsole, duration, printable, shown_path

STYLES = {
    "done": "green",
    "failed": "red",
    "resume": "yellow",
    "changed": "yellow",
    "new": "",
    "unfinished": "yellow",
}


def print_start(runs: list[Run]) -> None:
    """Where the runs go, and how many of them are done."""
    done = sum(run.status == "done" for run in runs)
    print(f"{_counted(runs)} in {shown_path(runs[0].folder.parent)}, {done} done", flush=True)


def print_plan(runs: list[Run], output_dir: Path, at_once: int) -> None:
    """Each run with its state, how many there are, and how long they may take."""
    seconds, num_known = estimate_seconds(runs, output_dir)
    keys = _varied(runs)
    table = _table(runs, keys)
    table.add_column("status", no_wrap=True)
    table.add_column("about", justify="right", no_wrap=True)
    for number, (run, guess) in enumerate(zip(runs, seconds, strict=True), 1):
        about = "" if run.status == "done" else "?" if guess is None else duration(guess)
        table.add_row(str(number), *_values(run, keys), _styled(run.status), about)
    todo = [guess for run, guess in zip(runs, seconds, strict=True) if run.status != "done"]
    console = PlainConsole(soft_wrap=True)
    PlainConsole().print(table)
    console.print(f"{_counted(runs)}, {len(todo)} to run, in {runs[0].folder.parent}")
    known = [guess for guess in todo if guess is not None]
    if known:
        total = sum(known) / len(known) * len(todo)
        together = f", {duration(total / at_once)} with {at_once} at a time" if at_once > 1 else ""
        console.print(
            f"About {duration(total)}{together}, from the finished runs among {num_known} in {output_dir}"
        )
    elif todo:
        console.print(f"No estimate: no run like these has finished in {output_dir}")


def print_outcome(runs: list[Run], metric: str) -> None:
    """Each run's main metric and state, what failed and why, and how to go on to the report."""
    keys = _varied(runs)
    table = _table(runs, keys)
    for name in (f"val {metric}", f"test {metric}", "status", "seconds"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    for number, run in enumerate(runs, 1):
        record = run.place.read_record() if run.status == "done" else {}
        values = [record.get(part, {}).get(metric) for part in ("val", "test")]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        seconds = f"{record['wall_seconds']:.0f}" if "wall_seconds" in record else ""
        state = run.status if run.status in ("done", "failed") else "unfinished"
        table.add_row(str(number), *_values(run, keys), *cells, _styled(state), seconds)
    console = PlainConsole(soft_wrap=True)
    PlainConsole().print(table)
    for number, run in enumerate(runs, 1):
        if run.status == "failed":
            what = " ".join(f"{key}={run.settings.get(key)}" for key in keys)
            console.print(
                Text.assemble(
                    (f"{number} failed", "red"), f" ({what}): {printable(run.place.read_error())}"
                )
            )
    if any(run.status == "done" for run in runs):
        console.print(f"python src/report.py runs={shown_path(runs[0].folder.parent)}")


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
    """Keys whose value differs between runs; the seed last."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    varied = [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]
    return sorted(varied, key=lambda key: key == "seed")


def _values(run: Run, keys: list[str]) -> list[str]:
    settings = run.settings
    return [settings.get(key, "") for key in keys]


def _styled(state: str) -> Text:
    return Text(state, style=STYLES[state] or "")
