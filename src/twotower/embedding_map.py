"""Item vectors on a plane, coloured by category: what ``src/embedding_map.py`` draws."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig
from torch import Tensor

from twotower.errors import UserError, check_number
from twotower.report.style import new_figure
from twotower.serve.retriever import Retriever, load
from twotower.wording import save_figure, short

# Paul Tol's muted palette, which colour-blind eyes tell apart
COLOURS = ("#332288", "#CC6677", "#44AA99", "#DDCC77", "#88CCEE", "#AA4499", "#117733", "#882255", "#999933", "#333333")
REST = "#DADADA"
PNG_HEAD = 200  # bytes in which its writer is named
SEED = 0  # of the items that are drawn, and of the order in which points lie over one another


class Panel(NamedTuple):
    """One run.

    Attributes:
        title: of the run.
        place: ``(num_items, 2)``.
        explained: share of the variance along both axes.
    """

    title: str
    place: np.ndarray
    explained: list[float]


def embedding_map(config: DictConfig) -> Path:
    """Project each run's item vectors on their first two principal axes and draw them beside one another.

    Raises:
        UserError: for no run, runs on different items, and settings out of range.
    """
    check_number("num_items", config.num_items, 3)
    check_number("num_categories", config.num_categories, 1, len(COLOURS))
    output = Path(config.output)
    _check_output(output)
    places = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    if not places:
        raise UserError("runs=[]: give a run folder or a checkpoint, or two: runs=[<before>,<after>]")
    models = [load(place, config.paths.data_dir, config.paths.cache_dir) for place in places]
    items = models[0].catalogue
    for place, model in zip(places, models, strict=True):
        if not model.catalogue["item"].equals(items["item"]):
            raise UserError(f"runs: {place} has other items than {places[0]}: give runs on the same data")
    rows = _some(len(items), config.num_items)
    panels = [_panel(model, rows) for model in models]
    alike = [panels[0], *(panel._replace(place=_mirrored(panel.place, panels[0].place)) for panel in panels[1:])]
    output.parent.mkdir(parents=True, exist_ok=True)
    category = items["category"].gather(rows.numpy())
    figure = draw(alike, category, config.num_categories, models[0].name)
    save_figure(figure, output)
    print(output)
    return output


def _check_output(output: Path) -> None:
    """Replace an older map, and no other file: matplotlib names itself at the start of its own."""
    if not os.path.lexists(output):
        return
    if output.is_file():
        with output.open("rb") as file:
            if b"Matplotlib" in file.read(PNG_HEAD):
                return
    raise UserError(f"output={output} is there and is no map of ours: give another name, or remove it")


def principal_axes(vectors: Tensor) -> tuple[Tensor, list[float]]:
    """``(num, dim)`` to ``(num, 2)`` along the two directions of most variance, and their shares of it."""
    centred = vectors.double() - vectors.double().mean(0)
    _, size, axes = torch.linalg.svd(centred, full_matrices=False)
    share = (size**2 / (size**2).sum().clamp_min(1e-12))[:2].tolist()
    place = centred @ axes[:2].T
    missing = 2 - place.shape[1]  # vectors of one number lie on a line
    return torch.nn.functional.pad(place, (0, missing)), share + [0.0] * missing


def draw(panels: list[Panel], category: pl.Series, num_categories: int, name: str) -> Figure:
    """One panel a run with a common legend.

    Args:
        panels: the runs, of the same items.
        category: ``(num_items,)`` name of each item's category, null where unknown.
        num_categories: how many are coloured, the largest.
        name: of the first run.
    """
    largest = category.drop_nulls().value_counts(sort=True)[:num_categories]
    figure = new_figure(5.6 * len(panels) + 0.4, 6.4)
    for axis, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        _points(axis, panel, category, largest[category.name].to_list())
    handles = [_dot(colour, short(row[0]), row[1]) for colour, row in zip(COLOURS, largest.iter_rows(), strict=False)]
    handles.append(Line2D([], [], marker="D", linestyle="", color="#777777", markersize=8, label="mean of a category"))
    rest = len(category) - int(largest["count"].sum())
    handles += [_dot(REST, "others", rest)] if rest else []
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, 3 * len(panels)), frameon=False, fontsize=9)
    figure.suptitle(f"Item vectors by category: {name}", x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def _points(axis: Axes, panel: Panel, category: pl.Series, largest: list[str]) -> None:
    colour_of = dict(zip(largest, COLOURS, strict=False))
    colour = np.array([colour_of.get(name, REST) for name in category.to_list()])
    order = np.random.default_rng(SEED).permutation(len(colour))  # no category covers another
    order = order[np.argsort(colour[order] != REST, kind="stable")]  # grey lies below
    size = float(np.clip(20_000 / len(colour), 3, 22))
    x, y = panel.place[order].T
    axis.scatter(x, y, c=colour[order], s=size, alpha=0.75, linewidths=0)
    for name in largest:
        centre = panel.place[(category == name).fill_null(False).to_numpy()].mean(0)
        axis.scatter(centre[0], centre[1], c=colour_of[name], s=130, marker="D", edgecolors="white", linewidths=1.6, zorder=3)
    axis.set_title(panel.title, loc="left", fontweight="bold", fontsize=11)
    shares = [f"principal axis {place}, {share:.0%} of the variance" for place, share in enumerate(panel.explained, start=1)]
    axis.set(xlabel=shares[0], ylabel=shares[1], xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axis.spines[:].set_color("#DDDDDD")


def _dot(colour: str, name: str, count: int) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=colour, markersize=7, label=f"{name} ({count:,})")


def _panel(model: Retriever, rows: Tensor) -> Panel:
    place, explained = principal_axes(model.item_vectors[rows])
    return Panel(model.title, place.numpy(), explained)


def _some(num: int, most: int) -> Tensor:
    return torch.randperm(num, generator=torch.Generator().manual_seed(SEED))[:most].sort().values


def _mirrored(place: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Which way a principal axis points is chance: the way in which the same items lie more like ``like``."""
    return np.where((place * like).sum(0) < 0, -place, place)
