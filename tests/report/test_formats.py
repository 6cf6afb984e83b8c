"""Names from data and from overrides in each format: no markup, no formulas, no files elsewhere."""

import json

import pytest

from tests.report.world import SETTINGS, make_ranks, make_run, make_variant, rows
from twotower.report import markdown

NAMES = (
    "=cmd|' /C calc'!A0",
    "# heading",
    "[click](http://site.example)",
    "<script>alert(1)</script>",
    "a`b|c\\",
    "\x1b[31mred",
)


def test_names_are_plain_text_in_every_format(script, tmp_path):
    data = {"data": "../../data/$x_$", "data_note": "<b>![x](y)</b>"}
    overrides = ["model=two_tower"]
    make_variant(tmp_path / "r", 0, (0, 1), overrides, model="two_tower", **data)
    for place, name in enumerate(NAMES):
        settings = {**SETTINGS, "model.dim": place}
        ranks = make_ranks(0.1, place)
        overrides = [f"variant={name}"]
        make_run(tmp_path / f"r/n{place}", ranks, 0, overrides, settings=settings, **data)
    failed = tmp_path / "r" / "![img](http:__site)`<i>"
    failed.mkdir()
    (failed / "failed.json").write_text(json.dumps({"error": "\x1b]0;t\x07<img src=x>\n\n# big"}))
    before = {path for path in tmp_path.rglob("*") if "report" not in path.parts}
    run = script("report", "runs=r", "resamples=100", "baseline=two_tower")
    assert run.returncode == 0, run.stderr
    assert {path for path in tmp_path.rglob("*") if "report" not in path.parts} == before
    report = tmp_path / "r" / "report"
    assert all(path.parent == report for path in report.rglob("*"))
    assert len(list(report.glob("*.png"))) >= 1
    for output in (run.stdout, *(path.read_text() for path in report.glob("*.[mcth]*"))):
        assert "\x1b" not in output and "\x07" not in output
    page = (report / "index.html").read_text()
    assert not any(tag in page for tag in ("<script", "<img src=x", "<i>", "<b>"))
    text = (report / "report.md").read_text()
    assert not any(tag in text for tag in ("](", "<script", "<img"))
    lines = text.splitlines()
    assert not any(line.startswith("#") for line in lines)
    tables = text.split("**All variants**")
    for part, num_rows in zip(tables, (len(NAMES), 1 + len(NAMES)), strict=True):
        table = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) == 1 and len(table) == 2 + num_rows
    assert "'=cmd" in {name[:5] for name in rows(script, "r/report")}
    tex = (report / "tables.tex").read_text()
    for name in (r"\# heading", "{[}click{]}", r"a`b\textbar{}c\textbackslash{}"):
        assert name in tex


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("movielens_1m, 6,040 users (x)", "movielens_1m, 6,040 users (x)"),
        ("&lt; A*B", "&#38;lt; A&#42;B"),
        ("_a_ b_c", "&#95;a&#95; b_c"),
    ],
)
def test_markdown_without_markup(text, written):
    assert markdown.escape(text) == written
