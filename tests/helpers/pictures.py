"""Finds what is wrong with a figure as it is drawn: texts cut or on one another, and the like."""

import io
import warnings
from itertools import combinations, pairwise

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.path import Path
from matplotlib.text import Text

from twotower.plotting import save_figure

SLACK = 1  # pixels


def faults(figure: Figure) -> list[str]:
    """What a reader of the picture would miss or could not read.

    Texts beyond the border, texts on one another or on a line, legends on a plot, and axes of
    numbers that do not say what they count.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        drawn = _drawn_texts(figure)
    found = [str(warning.message) for warning in told if "layout" in str(warning.message)]
    boxes = {text: _box(text, figure) for text in drawn}
    found += [f"cut: {text.get_text()!r}" for text, box in boxes.items() if _is_cut(box, figure)]
    for (one, its_box), (other, other_box) in combinations(boxes.items(), 2):
        if its_box.intersects_path(other_box):
            found.append(f"on one another: {one.get_text()!r}, {other.get_text()!r}")
    for axes in figure.axes:
        for text in set(axes.texts) & set(drawn):
            if any(_crosses(line, boxes[text]) for line in axes.lines):
                found.append(f"on a line: {text.get_text()!r}")
        for legend in figure.findobj(Legend):
            if _overlap(legend.get_window_extent(), axes.get_window_extent()):
                found.append(f"the legend is on {axes.get_title(loc='left')!r}")
    return found + _without_label(figure, drawn)


def _drawn_texts(figure: Figure) -> list[Text]:
    """The texts that drawing asks for; an axis also has labels of places that it does not show."""
    drawn, draw = {}, Text.draw

    def note(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            drawn[self] = None
        return draw(self, renderer, *args, **kwargs)

    save_figure(figure, io.BytesIO())  # as the product writes it
    Text.draw = note
    try:
        FigureCanvasAgg(figure).draw()
    finally:
        Text.draw = draw
    return list(drawn)


def _box(text: Text, figure: Figure) -> Path:
    """The rectangle of a text in pixels, turned as the text is."""
    height = text.get_size() * figure.dpi / 72
    text.set_bbox({"boxstyle": f"square,pad={-SLACK / height}"})
    text.update_bbox_position_size(figure.canvas.get_renderer())
    patch = text.get_bbox_patch()
    return patch.get_transform().transform_path(patch.get_path())


def _is_cut(box: Path, figure: Figure) -> bool:
    low, high = box.vertices.min(0), box.vertices.max(0)
    return bool((low < -SLACK).any() or (high > np.array(figure.bbox.size) + SLACK).any())


def _crosses(line, box: Path) -> bool:
    points = line.get_transform().transform(line.get_xydata())
    return any(box.intersects_path(Path(part), filled=True) for part in pairwise(points))


def _overlap(one, other) -> bool:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return min(width, height) > SLACK


def _without_label(figure: Figure, drawn: list[Text]) -> list[str]:
    """Axes with drawn numbers and without a label."""
    shared = {figure.get_supxlabel(), figure.get_supylabel()} - {""}
    found = []
    for axes in figure.axes:
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            labels = {label.get_text() for label in axis.get_ticklabels() if label in drawn}
            if any(map(_is_number, labels)) and not axis.get_label().get_text() and not shared:
                found.append(f"no {name} label: {axes.get_title(loc='left')!r} {sorted(labels)}")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text.replace("−", "-").rstrip("%kM "))
    except ValueError:
        return False
    return True
