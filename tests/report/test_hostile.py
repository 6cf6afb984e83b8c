"""Run folders from anybody: what does not fit is named and left out, and the report goes on."""

import csv
import io
import json
import os
import socket

import polars as pl
import pytest

from tests.report.world import SETTINGS, make_ranks, make_run, make_variant, rows
from twotower.report import markdown, runs, tables
from twotower.report.learning import read_curve
from twotower.report.plots import stems
from twotower.report.ranks import read_ranks
from twotower.report.section import Section
from twotower.report.variants import variants

RANKS = make_ranks(0, 0, num_users=30)
SPECIAL_FILES = ("pipe", "socket", "folder", "device", "loop")


def put(path, kind, monkeypatch):
    """Something in a file's place that is no ordinary file."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # its name may have 107 bytes
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)


@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_what_is_no_ordinary_file_is_left_out_at_once(tmp_path, kind, monkeypatch):
    folder = make_run(tmp_path / "r", RANKS, curve=[0.1, 0.2])
    put(folder / "test_ranks.parquet", kind, monkeypatch)
    assert read_ranks(folder).startswith("test_ranks.parquet is damaged")
    put(folder / "metrics.csv", kind, monkeypatch)
    assert read_curve(folder, "ndcg@10") == {}
    put(folder / "metrics.json", kind, monkeypatch)
    assert runs.find([str(tmp_path)]) == [folder]
    assert runs.read(folder, "r", []).reason.startswith("damaged: metrics.json cannot be read (")
    (folder / "metrics.json").rename(tmp_path / "away")
    put(folder / "failed.json", kind, monkeypatch)
    assert runs.read(folder, "r", []).reason == "failed, and failed.json is damaged"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": ""}, "model: nothing of it can be shown"),
        ({"model": "\x1b\x00"}, "model: nothing of it can be shown"),
        ({"model": "m" * 1000}, "model: String should have at most 200 characters"),
        ({"model": ["dat"]}, "model: Input should be a valid string"),
        ({"data": 3}, "data: Input should be a valid string"),
        ({"data_fingerprint": {}}, "data_fingerprint: Input should be a valid string"),
        ({"data_note": ["x"]}, "data_note: Input should be a valid string"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": True}, "seed: Input should be a valid integer"),
        ({"seed": 1.5}, "seed: Input should be a valid integer"),
        ({"seed": 10**400}, "seed: "),
        ({"overrides": "model=dat"}, "overrides: Input should be a valid list"),
        ({"overrides": [3]}, "overrides.0: Input should be a valid string"),
        ({"overrides": {"model": "dat"}}, "overrides: Input should be a valid list"),
        ({"settings": [1]}, "settings: Input should be a valid dictionary"),
        ({"settings": {"model.dim": [1]}}, "settings.model.dim"),
        ({"test": [0.1]}, "test: Input should be a valid dictionary"),
        ({"test": {"ndcg@10": float("inf")}}, "no test value of ndcg@10"),
        ({"test": {"ndcg@10": "0.1"}}, "no test value of ndcg@10"),
        ({"test": {"ndcg@10": True}}, "no test value of ndcg@10"),
        ({"test": {"ndcg@10": 1e308}}, "no test value of ndcg@10"),
        ({"test": {"ndcg@10": 10**400}}, "no test value of ndcg@10"),
        ({"categories": {"a": 1}}, "categories: Input should be a valid list"),
        ({"categories": ["a"]}, "categories.0: "),
        (
            {"categories": [{"name": "a", "train_interactions": -5}]},
            "categories.0.train_interactions: ",
        ),
        ({"status": "stopped\n# heading"}, "its status is stopped # heading"),
        ({"status": None, "model": None}, "metrics.json lacks model"),
    ],
)
def test_a_record_that_does_not_fit_is_left_out_with_the_reason(tmp_path, changes, reason):
    folder = make_run(tmp_path / "r", RANKS)
    path = folder / "metrics.json"
    record = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    found = runs.read(folder, "r", ["ndcg@10"])
    assert isinstance(found, runs.LeftOut), found
    assert reason in found.reason and found.reason.isprintable() and len(found.reason) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"3",
        b'"x"',
        b"[]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b"\x00",
        b"1" * 5000,
        b'{"model": "d',
    ],
)
def test_what_is_no_record_is_left_out_with_the_reason(tmp_path, content):
    for name in ("metrics.json", "failed.json"):
        (tmp_path / name).write_bytes(content)
    assert runs.read(tmp_path, "r", []).reason.startswith("damaged: metrics.json cannot be read (")
    (tmp_path / "metrics.json").unlink()
    assert runs.read(tmp_path, "r", []).reason == "failed, and failed.json is damaged"


def test_a_huge_record_is_not_read(tmp_path):
    with (tmp_path / "metrics.json").open("wb") as file:
        file.truncate(100 << 20)
    assert (
        runs.read(tmp_path, "r", []).reason
        == "damaged: metrics.json cannot be read (it has more than 16 MiB)"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank": [0, 1]}, "it holds no ranks"),
        ({"rank": [1, None]}, "rank holds what is no whole number"),
        ({"rank": [1.0, 2.0]}, "rank holds what is no whole number"),
        ({"rank": ["1", "2"]}, "rank holds what is no whole number"),
        ({"rank": [1, 2**40]}, f"rank holds 1 to {2**40}"),
        ({"user": [-1, 0]}, "user holds -1 to 0"),
        ({"user": [1, 0]}, "its users are not in order"),
        ({"category": [-2, 0]}, "category holds -2 to 0"),
    ],
)
def test_odd_ranks_are_named(tmp_path, changes, reason):
    columns = {"user": [0, 1], "item": [0, 1], "category": [0, 0], "rank": [1, 2], **changes}
    pl.DataFrame(columns).write_parquet(tmp_path / "test_ranks.parquet")
    assert read_ranks(tmp_path) == f"test_ranks.parquet is damaged ({reason})"


def test_folders_in_circles_end(tmp_path):
    folder = make_run(tmp_path / "a" / "r", RANKS)
    for name in ("one", "two", "three"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    assert runs.find([str(tmp_path)]) == [folder]


def section(name, fingerprint):
    return Section(name, fingerprint, "", (), (), {}, {})


@pytest.mark.parametrize(
    "name",
    ["a/b", "../../etc", "/etc/passwd", "..", "x" * 5000, "a\0b", "日本", ".hidden", "CON ", "-rf"],
)
@pytest.mark.parametrize("fingerprint", ["f1", "../../", ""])
def test_names_of_data_become_safe_and_unique_names_of_files(name, fingerprint):
    found = stems([section(name, fingerprint), section(name, fingerprint), section("toy", "f1")])
    assert len(set(found)) == 3 and found[2] == "toy-f1"
    for stem in found:
        assert len(stem) < 120 and stem[0].isalnum() | (stem[0] == "_")
        assert all(
            character.isalnum() and character.isascii() or character in "_+-@" for character in stem
        ), stem


NAMES = (
    "=cmd|' /C calc'!A0",
    "# heading",
    "[click](http://evil.example)",
    "<script>alert(1)</script>",
    "a`b|c\\",
    "\x1b[31mred",
)


def test_hostile_names_reach_no_format_as_markup_and_no_folder_outside(script, tmp_path):
    make_variant(
        tmp_path / "r",
        0,
        seeds=(0, 1),
        overrides=["model=two_tower"],
        model="two_tower",
        data="../../evil/$x_$",
    )
    for place, name in enumerate(NAMES):
        changes = {
            "overrides": [f"variant={name}"],
            "settings": {**SETTINGS, "model.dim": place},
            "data": "../../evil/$x_$",
        }
        make_run(
            tmp_path / "r" / f"n{place}",
            make_ranks(0.1, place),
            data_note="<b>![x](y)</b>",
            **changes,
        )
    hostile = tmp_path / "r" / "![img](http:__evil)`<i>"
    hostile.mkdir()
    (hostile / "failed.json").write_text(
        json.dumps({"error": "\x1b]0;title\x07<img src=x>\n\n# big\n| a | b |"})
    )
    before = {path for path in tmp_path.rglob("*") if "report" not in path.parts}
    run = script("report", "runs=r", "resamples=100", "baseline=two_tower")
    assert run.returncode == 0, run.stderr
    assert {path for path in tmp_path.rglob("*") if "report" not in path.parts} == before
    report = tmp_path / "r" / "report"
    assert (
        all(path.parent == report for path in report.rglob("*"))
        and len(list(report.glob("*.png"))) >= 1
    )
    for output in (run.stdout, *(path.read_text() for path in report.glob("*.[mcth]*"))):
        assert "\x1b" not in output and "\x07" not in output
    page = (report / "index.html").read_text()
    assert (
        "<script" not in page
        and "<img src=x" not in page
        and "<i>" not in page
        and "<b>" not in page
    )
    text = (report / "report.md").read_text()
    assert "](" not in text and "<script" not in text and "<img" not in text and "://" not in text
    lines = text.splitlines()
    assert not any(line.startswith("#") for line in lines)
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1 and len(table) == 2 + 1 + len(NAMES)
    assert "'=cmd" in {name[:5] for name in rows(script, "r/report")}
    tex = (report / "tables.tex").read_text()
    assert (
        r"\# heading" in tex and "{[}click{]}" in tex and r"a`b\textbar{}c\textbackslash{}" in tex
    )


def test_cells_that_a_spreadsheet_would_compute_are_text_and_numbers_stay_numbers():
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"):
        assert tables._cell(text) == f"'{text}"
    assert [tables._cell(value) for value in (-0.5, -3, "a=b", "", None)] == [
        -0.5,
        -3,
        "a=b",
        "",
        None,
    ]
    written = io.StringIO()
    csv.writer(written).writerow([tables._cell(-0.5)])
    assert written.getvalue() == "-0.5\r\n"


def test_text_as_markdown_shows_it():
    assert markdown.text("movielens_1m, 6,040 users (x)") == "movielens_1m, 6,040 users (x)"
    assert (
        markdown.text("see www.a.example, a@b.example") == "see www&#46;a.example, a&#64;b.example"
    )
    assert markdown.text("&lt; A & B") == "&#38;lt; A & B"
    assert markdown.code("dat λ3=0") == "`dat λ3=0`"
    assert markdown.code("a`b|c") == "<code>a&#96;b&#124;c</code>"


def test_labels_that_look_alike_are_still_told_apart(tmp_path):
    found = []
    for place in range(3):
        folder = make_run(
            tmp_path / f"{place}",
            RANKS,
            overrides=["model.x=" + "y" * 400],
            settings={"model.z": "z" * 400 + str(place)},
        )
        found.append(runs.read(folder, folder.name, []))
    labels = [variant.label for variant in variants(found)[0]]
    assert len(set(labels)) == 3 and all(len(label) < 310 for label in labels)
