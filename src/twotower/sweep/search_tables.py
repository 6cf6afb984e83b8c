"""Tables of a search's plan and of its outcome."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from twotower.sweep.candidates import Candidate
from twotower.sweep.plan import as_override
from twotower.sweep.search import Search
from twotower.sweep.tables import estimates_of
from twotower.sweep.trials import Trial, best_of, read_ended
from twotower.wording import PlainConsole, duration, printable, shown_path, typed

STATES = ("complete", "pruned", "failed")
CONFIRM_SEEDS = 5


def print_search_plan(search: Search, output_dir: Path, at_once: int) -> None:
    """Print the variants, the space, and how long the search may take.

    Args:
        search: before its start.
        output_dir: where finished runs are looked for.
        at_once: how many run at a time.
    """
    candidates, budget, folder = search.candidates, search.config.budget, search.folder
    done = read_ended(folder)
    console = PlainConsole()
    estimates, source = estimates_of([one.base for one in candidates], output_dir, ())
    table = Table(pad_edge=False, title=folder.name)
    table.add_column("variant", overflow="fold")
    for name in ("trials", "ended", "settings", "about"):
        table.add_column(name, justify="right", no_wrap=True)
    total = 0.0
    for one, seconds in zip(candidates, estimates, strict=True):
        ended = done.get(one.label, 0)
        left = max(budget - ended, 0)
        total += (seconds or 0.0) * left
        about_s = "?" if seconds is None else duration(seconds * left)
        table.add_row(one.label, str(budget), str(ended), str(len(one.space)), about_s)
    console.print(table)
    console.print(_space_table(candidates))
    about = f"{search.monitor}, {search.config.sampler}, {search.pruner}"
    trials = f"{len(candidates) * budget} trials, {about}, {search.width} of a variant at a time"
    console.print(f"{trials}, in {shown_path(folder)}", soft_wrap=True)
    if all(estimates):
        parallel = f", {duration(total / at_once)} with {at_once} at a time" if at_once > 1 else ""
        line = f"At most about {duration(total)}{parallel}, from {source}"
        console.print(f"{line}; trials that are pruned take less", soft_wrap=True)
    else:
        console.print(f"No estimate: {source}", soft_wrap=True)


def _space_table(candidates: Sequence[Candidate]) -> Table:
    """Each setting with its distribution, and why a variant does not vary it."""
    table = Table(pad_edge=False, title="space")
    table.add_column("setting", no_wrap=True)
    table.add_column("distribution", overflow="fold")
    table.add_column("not varied", overflow="fold")
    settings = dict.fromkeys(key for one in candidates for key in (*one.space, *one.fixed))
    for key in settings:
        text = next((one.space[key].text() for one in candidates if key in one.space), "")
        why = [
            f"{one.label}: {one.fixed.get(key, 'not of its space')}"
            for one in candidates
            if key not in one.space
        ]
        table.add_row(key, text, "; ".join(why))
    return table


def print_search_outcome(search: Search) -> None:
    """Print each variant's best trial, how its trials have ended, and the next command."""
    console = PlainConsole()
    folder, monitor, trials = search.folder, search.monitor, search.trials()
    table = Table(pad_edge=False, title=folder.name)
    table.add_column("variant", overflow="fold")
    for name in ("trials", *STATES, f"best {monitor}", "trial"):
        table.add_column(name, justify="right", no_wrap=True)
    lines: list[Text] = []
    for label, own in trials.items():
        counts = Counter(trial.state for trial in own)
        best = best_of(own, search.mode)
        cells = ["", ""]
        if best is not None and best.outcome is not None:
            settings = " ".join(f"{key}={as_override(v)}" for key, v in best.values.items())
            lines.append(Text.assemble((f"{label}: ", "bold"), settings))
            cells = [f"{best.outcome.value:.4f}", str(best.number)]
        table.add_row(label, str(len(own)), *(str(counts[state]) for state in STATES), *cells)
        for trial in own:
            if trial.outcome is not None and trial.state == "failed":
                reason = f": {printable(trial.outcome.error)}"
                lines.append(Text.assemble((f"{label} {trial.number} failed", "red"), reason))
    console.print(table)
    for line in lines:
        console.print(line, soft_wrap=True)
    if wrong := _unconfirmable(trials, search.config.budget):
        console.print(f"sweep=confirm needs more trials: {wrong}", soft_wrap=True)
        return
    next_command = f"{typed('train')} -m sweep=confirm search={shown_path(folder)}"
    console.print(f"{next_command} seeds={CONFIRM_SEEDS}", soft_wrap=True)


def _unconfirmable(trials: dict[str, list[Trial]], budget: int) -> str:
    """Which variants have not spent the budget, or have no trial that is complete."""
    wrong = []
    for label, own in trials.items():
        states = [trial.state for trial in own if trial.outcome is not None]
        if len(states) != budget:
            wrong.append(f"{label} has {len(states)} of {budget}: search it with budget={budget}")
        elif "complete" not in states:
            wrong.append(f"none of {label} is complete: search it with a larger budget")
    return "; ".join(wrong)
