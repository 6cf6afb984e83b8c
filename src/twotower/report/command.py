"""From run folders to a report: what ``src/report.py`` does."""

from collections import Counter
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from twotower.errors import UserError, check_number
from twotower.files import write_text
from twotower.metrics.base import RankMetric
from twotower.report import markdown, quoted, runs, tables
from twotower.report.console import show
from twotower.report.document import Report, as_markdown
from twotower.report.page import as_html
from twotower.report.plots import draw, stems
from twotower.report.section import Wanted, make_section
from twotower.report.variants import by_data
from twotower.wording import printable


def report(config: DictConfig) -> Report:
    """Read the runs, compare them, write everything.

    Raises:
        UserError: if no run can be counted, or a setting is wrong.
    """
    wanted = _wanted(config)
    counted, left_out = _read(_places(config), list(wanted.metrics))
    counted = _ignoring(list(config.ignore), counted)
    sections = [make_section(group, wanted) for group in by_data(counted)]
    entries = quoted.read(config.quoted)
    left_out += [run for section in sections for run in section.left_out]
    made = Report(
        sections, [quoted.fitting(entries, section) for section in sections], left_out, wanted
    )
    _write(made, Path(config.output or _default_output(_places(config))))
    if config["update"]:  # as an attribute it is a method
        markdown.update(Path(config["update"]), config.block, as_markdown(made))
    return made


def _read(places: list[str], metrics: list[str]) -> tuple[list[runs.Run], list[runs.LeftOut]]:
    folders = runs.find(places)
    names = _names(folders)
    read = [runs.read(folder, names[folder], metrics) for folder in folders]
    counted = [run for run in read if isinstance(run, runs.Run)]
    left_out = [run for run in read if isinstance(run, runs.LeftOut)]
    if not counted:
        reasons = Counter(run.reason for run in left_out).most_common(3)
        told = "; ".join(f"{reason} ({count} of {len(folders)})" for reason, count in reasons)
        raise UserError(f"runs={','.join(places)}: no run can be counted: {told}")
    return counted, left_out


def _ignoring(keys: list[str], counted: list[runs.Run]) -> list[runs.Run]:
    """The runs without the settings ``keys``, nor overrides of them."""
    known = {key for run in counted for key in run.settings}
    if unknown := [key for key in keys if key not in known]:
        raise UserError(
            f"ignore={unknown[0]}: no run has this setting; metrics.json lists them under settings"
        )
    return [run.without(keys) for run in counted]


def _write(made: Report, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "report.md", f"{as_markdown(made)}\n")
    write_text(output / "tables.csv", tables.as_csv(made))
    write_text(output / "tables.tex", tables.as_latex(made))
    places = zip(made.sections, stems(made.sections), strict=True)
    images = [draw(section, made.wanted, output, stem) for section, stem in places]
    write_text(output / "index.html", as_html(made, images))
    screen = Console()
    show(made, screen)
    screen.print(f"{output / 'index.html'}", soft_wrap=True, highlight=False, markup=False)


def _places(config: DictConfig) -> list[str]:
    places = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    if not places:
        raise UserError("runs=[]: give folders of runs or of sweeps, runs=[<one>,<another>]")
    return places


def _default_output(places: list[str]) -> Path:
    """``report`` in the first folder; of a glob in the part before its first wildcard."""
    first = Path(places[0])
    while not first.is_dir():
        first = first.parent
    if (first / "report").is_symlink():  # runs from elsewhere may hold one
        raise UserError(f"{first / 'report'} is a link: set output= to the folder of the report")
    return first / "report"


def _names(folders: list[Path]) -> dict[Path, str]:
    """Each folder's name below what all have in common."""
    parts = [folder.resolve().parts for folder in folders]
    shared = 0
    while all(len(own) > shared + 1 and own[shared] == parts[0][shared] for own in parts):
        shared += 1
    return {
        folder: printable("/".join(own[shared:]))
        for folder, own in zip(folders, parts, strict=True)
    }


def _wanted(config: DictConfig) -> Wanted:
    check_number("level", config.level, 0.5, 0.9999)
    check_number("resamples", config.resamples, 100)
    check_number("seed", config.seed, 0, 2**32 - 1)
    names = tuple(dict.fromkeys([config.compare, *config.columns]))
    nodes: Any = OmegaConf.to_container(config.metrics, resolve=True)
    metrics = {name: _metric(name, nodes) for name in names}
    return Wanted(
        config.compare,
        names[1:],
        config.baseline,
        config.level,
        config.resamples,
        config.seed,
        metrics,
    )


def _metric(name: str, nodes: dict[str, Any]) -> RankMetric:
    """``ndcg@10`` as its class with that cut-off alone."""
    kind, at, cut = name.partition("@")
    node = nodes.get(kind)
    if node is None or bool(at) != ("k" in node) or (at and not cut.isdigit()):
        known = ", ".join(f"{kind}@10" if "k" in node else kind for kind, node in nodes.items())
        raise UserError(f"{name} is no metric; there are {known}, with any cut-off")
    return instantiate({**node, **({"k": [int(cut)]} if at else {})}, num_groups=1)
