"""``src/report.py``: read run folders, compare the runs, write the report."""

from collections import Counter
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.text import Text

from twotower.errors import UserError, check_number
from twotower.files import write_text
from twotower.metrics.base import RankMetric
from twotower.report import markdown, quoted, runs, tables
from twotower.report.across import find_contrasts
from twotower.report.across_block import across_block
from twotower.report.blocks import Report
from twotower.report.comparison import Options
from twotower.report.console import show
from twotower.report.folders import find
from twotower.report.keep import check_names, keep
from twotower.report.page import as_html
from twotower.report.plots import draw, draw_blocks
from twotower.report.search_block import search_block
from twotower.report.searches import Search, find_searches, read_search
from twotower.report.section import make_section
from twotower.report.variants import by_data
from twotower.wording import PlainConsole


def report(config: DictConfig) -> None:
    """Write a report.

    Raises:
        UserError: if no run can be counted, or a setting is wrong.
    """
    options = _options(config)
    places = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    if not places:
        raise UserError("runs=[]: give folders of runs or of sweeps, runs=[<one>,<another>]")
    kept, updated = config["keep"], config["update"]  # config.update is a method
    if updated:
        markdown.block_of(Path(updated), config.block)
    searches = find_searches(places)
    counted, left_out = _read(places, options, searches)
    counted = _without(list(config.ignore), counted)
    if kept:
        check_names(Path(kept), counted, searches)
    sections = [make_section(group, options) for group in by_data(counted)]
    left_out += [run for section in sections for run in section.left_out]
    across = across_block(find_contrasts(sections, options), options) if sections else None
    read = [read_search(folder) for folder in searches]
    left_out += [own for own in read if isinstance(own, runs.LeftOut)]
    known = [own for own in read if isinstance(own, Search)]
    blocks = [search_block(own, place, options) for place, own in enumerate(known, 1)]
    made = Report(sections, left_out, (across,) if across else (), tuple(blocks))
    # by default in the first folder; of a glob in the part before its first wildcard
    first = Path(places[0])
    folder = next(path for path in (first, *first.parents) if path.is_dir())
    _write(made, Path(config.output or folder / "report"))
    if kept:
        keep(Path(kept), counted, searches)
    if updated:
        markdown.update(Path(updated), config.block, markdown.as_markdown(made))


def _read(
    places: list[str], options: Options, searches: list[Path]
) -> tuple[list[runs.Run], list[runs.LeftOut]]:
    found = find(places, others=searches)
    read = [runs.read(folder, name, options.metrics) for folder, name in found.items()]
    counted = [run for run in read if isinstance(run, runs.Run)]
    left_out = [run for run in read if isinstance(run, runs.LeftOut)]
    if not counted and not searches:
        counts = Counter(run.reason for run in left_out).most_common(3)
        reasons = "; ".join(f"{reason} ({count} of {len(read)})" for reason, count in counts)
        raise UserError(f"runs={','.join(places)}: no run can be counted: {reasons}")
    return counted, runs.with_trials_in_one(left_out)


def _without(keys: list[str], counted: list[runs.Run]) -> list[runs.Run]:
    """The runs without the settings ``keys``."""
    kept = []
    for run in counted:
        settings = {key: value for key, value in run.record.settings.items() if key not in keys}
        kept.append(run._replace(record=run.record.model_copy(update={"settings": settings})))
    known = {key for run in counted for key in run.record.settings}
    if unknown := [key for key in keys if key not in known]:
        raise UserError(
            f"ignore={unknown[0]}: no run has this setting; metrics.json lists them under settings"
        )
    return kept


def _write(made: Report, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "report.md", f"{markdown.as_markdown(made)}\n")
    write_text(output / "tables.csv", tables.as_csv(made))
    write_text(output / "tables.tex", tables.as_latex(made))
    for name, blocks in (("across.csv", made.across), ("searches.csv", made.searches)):
        (output / name).unlink(missing_ok=True)  # of an earlier report
        if rows := [row for block in blocks for row in block.rows]:
            write_text(output / name, tables.csv_of(rows))
    images, others = draw(made.sections, output), draw_blocks(made.blocks, output)
    write_text(output / "index.html", as_html(made, images, others))
    console = PlainConsole()
    show(made, console)
    console.print(Text(f"{output / 'index.html'}"), soft_wrap=True)


def _options(config: DictConfig) -> Options:
    check_number("level", config.level, 0.5, 0.9999)
    check_number("resamples", config.resamples, 100)
    check_number("seed", config.seed, 0)
    check_number("margin", config.margin, 0.0001, 0.5)
    names = dict.fromkeys([config.compare, *config.columns])
    nodes: Any = OmegaConf.to_container(config.metrics, resolve=True)
    return Options(
        metric=config.compare,
        metrics={name: _metric(name, nodes) for name in names},
        baseline=config.baseline,
        level=config.level,
        resamples=config.resamples,
        seed=config.seed,
        published=quoted.read(config.quoted),
        control=config.control,
        margin=config.margin,
    )


def _metric(name: str, nodes: dict[str, Any]) -> RankMetric:
    """``ndcg@10`` as its class with that cut-off alone."""
    kind, at, cut = name.partition("@")
    node = nodes.get(kind, {})
    has_cut = "k" in node
    if not node or bool(at) != has_cut or (at and not cut.isdigit()):
        known = ", ".join(f"{kind}@10" if "k" in node else kind for kind, node in nodes.items())
        raise UserError(f"unknown metric {name}; there are {known}, with any cut-off")
    cuts = {"k": [int(cut)]} if at else {}
    metric: RankMetric = instantiate({**node, **cuts}, num_groups=1)
    return metric
