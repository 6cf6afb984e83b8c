"""From run folders to a report: what ``src/report.py`` does."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from twotower.metrics.base import RankMetric
from twotower.report import markdown, runs
from twotower.report.section import Section, Wanted, make_section
from twotower.report.variants import by_data
from twotower.results import write_text
from twotower.types import UserError, check_number


def report(config: DictConfig) -> list[Section]:
    """Read the runs, compare them, write everything.

    Raises:
        UserError: if no run can be counted, or a setting is wrong.
    """
    places = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    wanted = _wanted(config)
    folders = runs.find(places)
    names = _names(folders)
    read = [runs.read(folder, names[folder], list(wanted.metrics)) for folder in folders]
    counted = [run for run in read if isinstance(run, runs.Run)]
    left_out = [run for run in read if isinstance(run, runs.LeftOut)]
    if not counted:
        reasons = "; ".join(f"{run.name}: {run.reason}" for run in left_out)
        raise UserError(f"none of the {len(folders)} runs can be counted: {reasons}")
    sections = [make_section(group, wanted) for group in by_data(counted)]
    left_out += [run for section in sections for run in section.left_out]
    _write(config, sections, left_out, wanted)
    return sections


def _write(config: DictConfig, sections: list[Section], left_out: list[runs.LeftOut], wanted: Wanted) -> None:
    text = markdown.document(sections, left_out, wanted)
    output = Path(config.output or _first_folder(config) / "report")
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "report.md", f"{text}\n")
    if config["update"]:  # the attribute is a method
        markdown.update(Path(config["update"]), config.block, text)
    print(text)


def _first_folder(config: DictConfig) -> Path:
    first = config.runs if isinstance(config.runs, str) else config.runs[0]
    return Path(first) if Path(first).is_dir() else Path()


def _names(folders: list[Path]) -> dict[Path, str]:
    """Each folder's name below what all have in common."""
    parts = [folder.resolve().parts for folder in folders]
    shared = 0
    while all(len(own) > shared + 1 and own[shared] == parts[0][shared] for own in parts):
        shared += 1
    return {folder: "/".join(own[shared:]) for folder, own in zip(folders, parts, strict=True)}


def _wanted(config: DictConfig) -> Wanted:
    check_number("level", config.level, 0.5, 0.9999)
    check_number("resamples", config.resamples, 100)
    check_number("seed", config.seed, 0, 2**32 - 1)
    names = tuple(dict.fromkeys([config.compare, *config.columns]))
    nodes: Any = OmegaConf.to_container(config.metrics, resolve=True)
    metrics = {name: _metric(name, nodes) for name in names}
    return Wanted(config.compare, names[1:], config.baseline, config.level, config.resamples, config.seed, metrics)


def _metric(name: str, nodes: dict[str, Any]) -> RankMetric:
    """``ndcg@10`` as its class with that cut-off alone."""
    kind, at, cut = name.partition("@")
    node = nodes.get(kind)
    if node is None or bool(at) != ("k" in node) or (at and not cut.isdigit()):
        known = ", ".join(f"{kind}@10" if "k" in node else kind for kind, node in nodes.items())
        raise UserError(f"{name} is no metric; there are {known}, with any cut-off")
    return instantiate({**node, **({"k": [int(cut)]} if at else {})}, num_groups=1)
