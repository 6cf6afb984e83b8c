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


ALL_GROUPS = ("head", "middle", "tail", "warm", "cold", "cold_user")


def record(groups=ALL_GROUPS, **given):
    own = {
        f"{name}@{k}": k / 1000 for name in ("hit_rate", "recall", "ndcg") for k in (10, 50, 100)
    }
    own |= {f"ndcg@{k}": k / 2000 for k in (10, 50, 100)}
    test = own | {f"{group}/{metric}": 1.0 for group in groups for metric in own}
    made = {"model": "dat", "data": "movielens_1m", "seed": 0, "val": own, "test": test}
    rest = {"popularity": dict.fromkeys(own, 0.5), "oracle": None, "epochs": 3}
    return {**made, **rest, **given}


def table(capsys, monkeypatch, width, **given):
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(record(**given), Path("run"))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("oracle", [None, {"ndcg@10": 0.5}])
def test_the_results_fit_the_terminal_and_say_what_is_left_out(capsys, monkeypatch, width, oracle):
    names = {"model": "my_model" * 9, "data": "my_data" * 9, "data_note": "a remark " * 9}
    oracle = oracle and dict.fromkeys(record()["val"], 1.0)
    lines = table(capsys, monkeypatch, width, oracle=oracle, **names)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= width and "…" not in text
    assert "metric" in text and " val test popularity " in text
    header = next(line for line in lines if "popularity" in line)
    left_out = [name for name in ("head", "tail", "warm") if name not in header]
    assert all(name in text.rpartition("metrics.json: ")[2] for name in left_out)
    assert bool(left_out) == (width == 60)


def test_rows_and_columns_that_repeat_others_are_left_out(capsys, monkeypatch):
    text = "\n".join(table(capsys, monkeypatch, 80))
    assert "hit_rate@10" in text and "ndcg@10" in text and "recall" not in text
    own = record(groups=())["test"]
    text = "\n".join(table(capsys, monkeypatch, 80, groups=(), model="popularity", popularity=own))
    assert "test" in text and text.count("popularity") == 1  # in the title
