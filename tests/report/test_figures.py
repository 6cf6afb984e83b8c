"""Names from data in plots."""

import io
import warnings

import pytest
from matplotlib.figure import Figure
from PIL import Image

from twotower.plotting import save_figure, short

NAMES = [
    "$5_to_$10",
    r"$\frac{",
    "\\",
    "a\0b",
    "\x1b[31m",
    "日本語",
    "_hidden",
    "",
    "%s {} #",
    "\ud800",
]


def test_names_are_no_formulas_and_missing_letters_are_not_told_one_by_one():
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(NAMES)), range(len(NAMES)), label=short(NAMES[0]))
    axis.set_yticks(range(len(NAMES)), [short(name) for name in NAMES])
    axis.set(title="$10_to_$20", xlabel="$x_y$")
    axis.annotate("$1_$2", (0, 0))
    axis.legend()
    figure.suptitle("$3_$4")
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, picture)
    assert Image.open(picture).size == (640, 480)


def test_the_powers_of_a_logarithmic_axis_are_numbers():
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    axis.plot([1, 1000], [2, 9])
    axis.set(xscale="log", yscale="log")
    save_figure(figure, io.BytesIO())
    shown = [
        label.get_text()
        for scale in (axis.xaxis, axis.yaxis)
        for label in scale.get_ticklabels(which="both")
    ]
    assert {"1", "10", "100", "1000", "2", "4"} <= set(shown)
    assert not any("$" in text for text in shown)


def test_a_link_in_the_place_of_a_plot_is_replaced(tmp_path):
    (tmp_path / "precious").write_text("text")
    (tmp_path / "plot.png").symlink_to(tmp_path / "precious")
    save_figure(Figure(), tmp_path / "plot.png")
    assert (tmp_path / "precious").read_text() == "text"
    assert not (tmp_path / "plot.png").is_symlink()


@pytest.mark.parametrize(("name", "shown"), [("a" * 9, "aaaa…"), ("_b", " _b"), ("c\0\n", "c")])
def test_a_short_name_fits_and_is_never_left_out_of_a_legend(name, shown):
    assert short(name, 5) == shown
