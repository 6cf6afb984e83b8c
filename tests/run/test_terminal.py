"""Text from data is shown as it is."""

import io
import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from tests.conftest import ROOT
from twotower.run.results import print_table
from twotower.wording import PlainConsole

NASTY = [
    "[/rec] a",
    "[rec] b",
    "[bold]c",
    "a :heart: b",
    "[link=http://x]y[/link]",
    "\\[x",
    "[[",
    "[]",
    "[on sale]",
]


def printed(*objects, **options):
    console = PlainConsole(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    console.print(*objects, **options)
    return console.file.getvalue()


@pytest.mark.parametrize("text", NASTY)
def test_square_brackets_and_colons_are_text(text):
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    table.add_row(Text(text))
    assert printed(table).count(text) == 5
    assert printed(text) == f"{text}\n" and printed(text, style="bold") == f"{text}\n"


def test_a_terminal_obeys_nothing():
    text = "a\x1b[31mred\x1b]0;title\x07\x9b2J\u202eb\rc"
    table = Table("x")
    table.add_row(text)
    for shown in (printed(text), printed(Text(text)), printed(table)):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
        assert "a[31mred" in shown
    assert printed("one\ntwo") == "one\ntwo\n"


def test_nothing_is_printed_by_another_console():
    """But for the report and the export, which escape what they print themselves."""
    for path in (ROOT / "src").rglob("*.py"):
        if "report" in path.parts or "export" in path.parts or path.name == "terminal.py":
            continue
        text = path.read_text()
        assert not re.search(r"\bConsole\(|import escape|from_markup|\[/\]", text), path
        assert text.count("TextColumn(") == text.count("markup=False"), path


def test_a_runs_folder_is_printed_in_one_piece(capsys):
    folder = Path("outputs") / ("long" * 20) / "01-47-54-two_tower-table"
    record = {"model": "mf", "data": "table", "seed": 0, "val": {"mrr": 0.1}, "test": {"mrr": 0.1}}
    print_table({**record, "epochs": 1, "oracle": None}, folder)
    assert str(folder) in capsys.readouterr().out.splitlines()
