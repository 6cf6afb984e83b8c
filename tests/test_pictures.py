"""The check of pictures finds each kind of fault."""

import pytest

from tests.helpers.pictures import faults
from twotower.plotting import broken, frame, legend_below, new_figure


def plain():
    figure = new_figure(4, 3)
    axis = figure.subplots()
    axis.plot([1, 2], [3, 4], label="a line")
    axis.set(xlabel="epoch", ylabel="ndcg@10")
    return figure, axis


def cut(figure, axis):
    axis.set_title("a title that is wider than the figure is, and has more to say", loc="left")


def crowded(figure, axis):
    axis.set_xticks([1.5, 1.52], ["one name", "another"])


def crossed(figure, axis):
    axis.text(1.5, 3.5, "here", ha="center", va="center")


def hidden(figure, axis):
    axis.legend()


def unnamed(figure, axis):
    axis.set_ylabel("")


def collapsed(figure, axis):
    axis.set_xlabel("\n" * 30 + "below")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (cut, "cut: 'a title"),
        (crowded, "on one another: 'one name', 'another'"),
        (crossed, "on a line: 'here'"),
        (hidden, "the legend is on "),
        (unnamed, "no y label: "),
        (collapsed, "constrained_layout not applied"),
    ],
)
def test_faults_are_found(spoil, fault):
    figure, axis = plain()
    assert faults(figure) == []
    figure, axis = plain()
    spoil(figure, axis)
    assert any(found.startswith(fault) for found in faults(figure)), faults(figure)


def test_texts_turned_side_by_side_are_no_fault():
    figure, axis = plain()
    names = [f"category number {place}" for place in range(12)]
    axis.set_xticks(range(12), names, rotation=60, ha="right", rotation_mode="anchor")
    assert faults(figure) == []


@pytest.mark.parametrize("num", [1, 2, 9])
def test_titles_and_legends_of_any_length_fit(num):
    figure = new_figure(4.6, 4)
    for axis in figure.subplots(1, 2):
        frame(axis, "two words and a price of $5_to_$10 " * 2)
        for place in range(num):
            axis.plot([1, 2], [place, 4], label=f"the variant with the number {place}")
        axis.set(xlabel="epoch", ylabel="ndcg@10")
    legend_below(figure)
    assert faults(figure) == []


def test_lines_are_broken_at_their_width():
    text = "one two three\nfour"
    assert broken(text, 9, size=10) == text
    assert broken(text, 0.5, size=10) == "one\ntwo\nthree\nfour"
    assert max(map(len, broken("a" * 99, 1, size=10).split("\n"))) < 20
