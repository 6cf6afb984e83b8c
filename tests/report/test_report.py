"""The whole command on run folders made by hand."""

import csv
import re
import shutil

import numpy as np
import polars as pl
import pytest

from tests.report.world import METRICS, SETTINGS, make_ranks, make_run, make_variant, rows
from twotower.errors import UserError
from twotower.report import markdown
from twotower.report.comparison import Comparison
from twotower.report.ranks import per_user
from twotower.report.statistics import Evidence
from twotower.report.variants import Variant

PLAIN = {
    "model._target_": "twotower.models.two_tower.TwoTower",
    "loss.lambda1": 0,
    "loss.lambda2": 0,
    "loss.lambda3": 0,
}


@pytest.fixture
def sweep(tmp_path):
    """A two-tower baseline, a model that is clearly better, and one that only differs by noise."""
    root = tmp_path / "sweep"
    make_variant(
        root, 0, overrides=["model=two_tower"], settings=PLAIN, model="two_tower", curve=[0.1, 0.2]
    )
    make_variant(root, 0.5, overrides=["model=dat"], settings={"loss.lambda3": 1}, curve=[0.1, 0.3])
    make_variant(
        root,
        0.01,
        overrides=["model=dat", "loss.lambda3=0"],
        settings={"loss.lambda3": 0},
        curve=[0.2, 0.25],
    )
    return root


def test_a_table_with_differences(script, sweep):
    run = script("report", "runs=sweep")
    assert run.returncode == 0, run.stderr
    found = rows(script)
    assert list(found) == ["two_tower", "dat", "dat λ3=0"]  # the baseline, then from the best on
    assert found["dat"]["seeds"] == "0 1 2" and found["two_tower"]["difference ndcg@10"] == ""
    means = {}
    for name, variant in (("two_tower", "model=two_tower"), ("dat", "model=dat")):
        means[name] = [
            script.metrics(f"sweep/{variant},seed={seed}")["test"]["ndcg@10"] for seed in range(3)
        ]
        assert float(found[name]["ndcg@10"]) == pytest.approx(np.mean(means[name]))
        assert float(found[name]["ndcg@10 sd"]) == pytest.approx(np.std(means[name], ddof=1))
    difference = np.subtract(means["dat"], means["two_tower"])
    assert float(found["dat"]["difference ndcg@10"]) == pytest.approx(difference.mean())
    half = 4.30265 * difference.std(ddof=1) / 3**0.5
    assert float(found["dat"]["seeds high"]) == pytest.approx(difference.mean() + half, abs=1e-6)
    assert float(found["dat"]["users p"]) == pytest.approx(
        1 / 10001
    )  # no flip of 10,000 reached it
    assert float(found["dat"]["users p holm"]) == pytest.approx(2 / 10001)
    assert float(found["dat λ3=0"]["users p"]) > 0.05
    text = (script.folder / "sweep/report/report.md").read_text()
    assert (
        re.search(r"\| `dat` \| [^|]+ \| \*\*\+\.\d{4} \(\+\d+\.\d %\)\*\*.*\| 3 \|", text)
        and "`dat λ3=0` | " in text
    )
    # nothing but the planted difference, to the baseline and as the only pair of λ3
    assert text.count("**+") == 2 and text.count("| **+") == 2, text


def test_the_budget_of_a_search_is_a_column_and_its_trials_are_one_line(script, tmp_path):
    make_variant(tmp_path / "sweep", 0, overrides=["variant=dat"], budget=24)
    other = {"settings": {"loss.lambda1": 0}, "model": "two_tower"}
    make_variant(tmp_path / "sweep", 0.1, overrides=["variant=two_tower"], **other)
    for number in (0, 1):
        make_run(tmp_path / "search" / f"dat-00{number}", make_ranks(0, 0), test={})
    out = script("report", "runs=[sweep,search]", "resamples=100").stdout
    assert "budget" in out and "search: 2 runs not tested, as a trial of a search is not" in out
    found = rows(script)
    assert found["dat"]["budget"] == "24" and found["two_tower"]["budget"] == ""


def test_a_comparison_is_of_one_set_of_runs(script, tmp_path):
    """Over the common seeds the variant gains, over all of its runs it loses."""
    make_variant(
        tmp_path / "r", 0, (0, 1), overrides=["model=two_tower"], settings=PLAIN, model="two_tower"
    )
    wide = {"overrides": ["model.dim=64"], "settings": {"model.dim": 64}}
    make_variant(tmp_path / "r", 0.4, (0, 1), **wide)
    make_variant(tmp_path / "r", -6, (2, 3, 4), **wide)
    make_variant(
        tmp_path / "r", 0.5, (7,), overrides=["model.dim=128"], settings={"model.dim": 128}
    )
    run = script("report", "runs=r", "baseline=two_tower")
    assert run.returncode == 0, run.stderr
    found = rows(script, "r/report")
    test = {
        (name, seed): script.metrics(f"r/{name},seed={seed}")["test"]["ndcg@10"]
        for name in ("model=two_tower", "model.dim=64")
        for seed in (0, 1)
    }
    gain = np.mean([test["model.dim=64", seed] - test["model=two_tower", seed] for seed in (0, 1)])
    row = found["dat dim=64"]
    assert (
        float(row["difference ndcg@10"]) == pytest.approx(gain) and row["difference seeds"] == "0 1"
    )
    for over in ("seeds", "users"):
        assert float(row[f"{over} low"]) <= gain <= float(row[f"{over} high"]), over
    other = found["dat dim=128"]
    assert (
        other["difference seeds"] == "7 against 0 1"
        and other["seeds low"] == ""
        and other["users low"]
    )
    for name in ("report.md", "index.html", "tables.tex"):
        text = (tmp_path / "r/report" / name).read_text()
        assert "over the 2 common seeds" in text and "different seeds" in text, name
    text = (tmp_path / "r/report/report.md").read_text()
    assert float(row["ndcg@10"]) < float(found["two_tower"]["ndcg@10"])
    assert "**+" not in text


def test_no_difference_is_clear_against_all_runs_together():
    evidence = Evidence(0.05, 0.15, 0.001, 0.002)
    variant = Variant("dat", ())
    comparison = Comparison(variant, variant, variant, "", 0.1, 0.1, evidence, evidence)
    assert comparison.is_clear(0.95) and not comparison._replace(overall=-0.01).is_clear(0.95)
    assert not comparison._replace(seeds=None).is_clear(0.95)
    opposite = Evidence(-0.15, -0.05, 0.001, 0.002)
    assert not comparison._replace(users=opposite).is_clear(0.95)


def test_every_output_is_there_and_the_page_needs_nothing_else(script, sweep):
    assert script("report", "runs=sweep", "output=out").returncode == 0
    names = {path.name for path in (script.folder / "out").iterdir()}
    plots = {f"toy-1-{name}.png" for name in ("differences", "categories", "learning")}
    assert (
        names == {"report.md", "tables.csv", "tables.tex", "index.html"} | plots
    )  # no λ plot: too few points
    page = (script.folder / "out" / "index.html").read_text()
    assert (
        page.count("data:image/png;base64,") == 3
        and not re.search(r'(src|href)="(?!data:)', page)
        and "url(" not in page
    )
    tex = (script.folder / "out" / "tables.tex").read_text()
    assert r"two\_tower & ." in tex and tex.count(r"\\") == 2 + 4 and tex.isascii()
    rows_of_tex = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert [line.count("&") for line in rows_of_tex] == [9] * 2 + [8] * 4


def test_lambda_plots_where_there_are_points(script, tmp_path):
    for lambda1 in (0, 0.5):
        for lambda3 in (0, 1, 10):
            settings = {"loss.lambda1": lambda1, "loss.lambda2": lambda1, "loss.lambda3": lambda3}
            overrides = [
                f"loss.lambda1={lambda1}",
                f"loss.lambda2={lambda1}",
                f"loss.lambda3={lambda3}",
            ]
            make_variant(
                tmp_path / "grid",
                0.1 * lambda3,
                seeds=(0, 1),
                overrides=overrides,
                settings=settings,
            )
    assert script("report", "runs=grid", "resamples=100").returncode == 0
    names = {path.stem.split("-")[-1] for path in (tmp_path / "grid" / "report").glob("*.png")}
    assert names == {
        "differences",
        "categories",
        "lambda_curves",
        "lambda_grid",
    }  # no metrics.csv, no learning curve
    assert next(iter(rows(script, "grid/report"))) == "dat λ1=0 λ2=0 λ3=0"


def test_nothing_is_mixed_and_nothing_dropped_in_silence(script, sweep):
    other = make_ranks(0, 0, users_seed=9)
    make_run(sweep / "elsewhere", other, split_fingerprint="f2", data="toy_too")
    (sweep / "dead").mkdir()
    (sweep / "dead" / "failed.json").write_text('{"error": "the loss is nan"}')
    (sweep / "half" / ".hydra").mkdir(parents=True)
    shutil.copytree(sweep / "model=dat,seed=0", sweep / "again")
    (sweep / "model=two_tower,seed=1" / "test_ranks.parquet").unlink()
    make_run(
        sweep / "strange",
        other,
        overrides=["model=dat", "loss.lambda3=5"],
        settings={**SETTINGS, "loss.lambda3": 5},
    )
    run = script("report", "runs=sweep", "resamples=100")
    assert run.returncode == 0, run.stderr
    text = (sweep / "report" / "report.md").read_text()
    assert "The data sets differ" in text and "**toy_too, 400 test users**" in text
    table = (sweep / "report" / "tables.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in table[1:]] == ["f1"] * 4 + ["f2"]
    for line in (
        "- `dead`: failed: the loss is nan",
        "- `half`: not finished: interrupted; last written",
        "the same settings and seed",
        "- `model=two_tower,seed=1`: not in the tests over users: no test_ranks.parquet",
    ):
        assert line in text, text
    compared = rows(script)["dat λ3=0"]
    assert (
        "users p" not in compared and compared["seeds p"]
    )  # the baseline's users are not all known


def test_ranks_of_other_users_or_of_another_test_are_not_used(script, tmp_path):
    make_variant(
        tmp_path / "r", 0, overrides=["model=two_tower"], settings=PLAIN, model="two_tower"
    )
    make_run(
        tmp_path / "r/others",
        make_ranks(0, 0, users_seed=9),
        overrides=["a=1"],
        settings={**SETTINGS, "model.a": 1},
    )
    lying = {
        name: float(per_user(make_ranks(1, 0), metric).mean()) for name, metric in METRICS.items()
    }
    make_run(
        tmp_path / "r/lying",
        make_ranks(0, 0),
        overrides=["a=2"],
        settings={**SETTINGS, "model.a": 2},
        test=lying,
    )
    assert script("report", "runs=r", "resamples=100").returncode == 0
    text = (tmp_path / "r" / "report" / "report.md").read_text()
    for name, problem in (
        ("others", "are of other users or items than most runs'"),
        ("lying", "give another ndcg@10 than its metrics.json"),
    ):
        assert f"`{name}`: not in the tests over users: its ranks {problem}" in text
    assert "users p" not in rows(script, "r/report")["two_tower"]  # no comparison is left


def test_quoted_rows_stand_below_where_the_protocol_fits(script, tmp_path):
    quoted = """
    - source: Somebody (2020)
      data: [toy]
      users: 400
      settings: {data.mask_seen: true}
      models: {Their & model: {ndcg@10: .0543, hit_rate@5: .1}}
    """
    (tmp_path / "quoted.yaml").write_text(quoted)
    make_variant(tmp_path / "a", 0)
    make_variant(tmp_path / "b", 0, settings={"data.mask_seen": False})
    for runs, there in (("a", True), ("b", False)):
        assert script("report", f"runs={runs}", "quoted=quoted.yaml").returncode == 0
        text = (tmp_path / runs / "report" / "report.md").read_text()
        assert ("| *Their & model (quoted: Somebody (2020))* | .0543 |" in text) == there
        assert (
            r"Their \& model" in (tmp_path / runs / "report" / "tables.tex").read_text()
        ) == there
    (tmp_path / "quoted.yaml").write_text(quoted.replace("400", "401"))
    assert script("report", "runs=a", "quoted=quoted.yaml").returncode == 0
    assert "Somebody" not in (tmp_path / "a" / "report" / "report.md").read_text()
    (tmp_path / "quoted.yaml").write_text("- source: x")
    run = script("report", "runs=a", "quoted=quoted.yaml")
    assert (
        run.returncode == 1
        and "quoted=quoted.yaml cannot be read as docs/published.yaml can: 0.data: Field required"
        in run.stderr
    )


def test_runs_of_two_versions_are_one_variant_if_told_so(script, tmp_path):
    make_variant(tmp_path / "r", 0, seeds=(0, 1))
    make_variant(
        tmp_path / "r", 0, seeds=(2,), overrides=["model.new=1"], settings={"model.new": 1}
    )
    assert script("report", "runs=r", "resamples=100").returncode == 0
    assert list(rows(script, "r/report")) == ["dat", "dat new=1"]
    assert script("report", "runs=r", "resamples=100", "ignore=[model.new]").returncode == 0
    assert rows(script, "r/report")["dat"]["seeds"] == "0 1 2"


def test_a_block_of_a_file_is_written_anew(script, sweep):
    path = script.folder / "results.md"
    start = "Before\n<!-- report:one -->\nold\n<!-- /report -->\nbetween\n<!-- report:two -->\n"
    path.write_text(f"{start}<!-- /report -->\n")
    with pytest.raises(UserError, match="it has one, two; block=NAME chooses one"):
        markdown.update(path, None, "")
    markdown.update(path, "two", "what an earlier report wrote")
    assert script("report", "runs=sweep", "update=results.md", "block=two").returncode == 0
    text = path.read_text()
    assert text.startswith(f"{start}\n**toy")
    assert text.endswith("80 %\n\n<!-- /report -->\n")
    assert "earlier" not in text and text.count("| `two_tower` | .") == 1
    assert str(script.folder) not in text


def test_a_block_that_is_not_there(tmp_path):
    path = tmp_path / "x.md"
    path.write_text("<!-- report:one -->\n<!-- /report -->")
    with pytest.raises(UserError, match="<!-- report:two --> and <!-- /report -->"):
        markdown.update(path, "two", "")


def test_a_file_that_cannot_be_updated_is_refused_before_anything_is_written(script, tmp_path):
    make_variant(tmp_path / "r", 0, seeds=(0,))
    (tmp_path / "bytes.md").write_bytes(b"\xff")
    (tmp_path / "none.md").write_text("nothing\n")
    for given, message in [
        ("missing.md", "update=missing.md: No such file or directory; name a Markdown file"),
        ("bytes.md", "update=bytes.md: it is no text; name a Markdown file"),
        ("none.md", "update=none.md: it has no block; block=NAME chooses one"),
    ]:
        run = script("report", "runs=r", f"update={given}", "keep=kept", "resamples=100")
        assert run.returncode == 1 and message in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1, run.stderr
        assert sorted(path.name for path in tmp_path.glob("*/report")) == []
        assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("runs=none",), "runs=none: there is no run folder"),
        (
            ("runs=sweep", "compare=ndgc@10"),
            "unknown metric ndgc@10; there are hit_rate@10, recall@10, ndcg@10, mrr",
        ),
        (("runs=sweep", "compare=mrr@10"), "unknown metric mrr@10"),
        (("runs=sweep", "compare=ndcg"), "unknown metric ndcg"),
        (
            ("runs=sweep", "compare=ndcg@7"),
            "no run can be counted: no test value of ndcg@7 (9 of 9)",
        ),
        (
            ("runs=sweep", "baseline=mind"),
            "baseline=mind names no variant; there are: dat; dat λ3=0; two_tower",
        ),
        (("runs=sweep", "ignore=[model.new]"), "ignore=model.new: no run has this setting"),
        (("runs=sweep", "level=95"), "level must be less than or equal to 0.9999, got 95"),
        (("runs=sweep", "quoted=none.yaml"), "quoted=none.yaml cannot be read"),
        (("runs=[]",), "error: runs=[]: give folders"),
        (("runs=sweep", "update=none.md"), "none.md: No such file"),
        ((), "runs"),
    ],
)
def test_user_errors_are_one_line(script, sweep, overrides, message):
    run = script("report", *overrides)
    assert run.returncode == 1
    assert message in run.stderr and len(run.stderr.strip().splitlines()) == 1, run.stderr


def test_differences_across_data_sets_and_searches_are_in_every_format(script, tmp_path):
    for data in ("one", "two", "three"):
        for name, weight in (("dat_lambda0", 0), ("dat", 1)):
            settings = {f"loss.lambda{place}": weight for place in (1, 2, 3)}
            fields = {"data": data, "split_fingerprint": data, "interactions_per_user": len(data)}
            overrides = [f"data={data}", f"variant={name}"]
            make_variant(tmp_path / "r" / data, 0.2 * weight, (0, 1), overrides, settings, **fields)
    search = tmp_path / "r" / "search"
    make_run(search / "dat-0", make_ranks(0, 0), test={})  # a trial
    (search / "search.yaml").write_text("{metric: val/ndcg@10, data: one, sampler: random}")
    trials = ["variant,number,state,value,seconds"]
    trials += [
        f"{name},{place},complete,.{place}{len(name)},9"
        for name in ("dat", "=mf")
        for place in (1, 2)
    ]
    (search / "trials.csv").write_text("\n".join(trials))
    report = tmp_path / "r" / "report"
    report.mkdir()
    for name in ("across-forest-2.png", "search-2-budget.png"):  # of an earlier report
        (report / name).touch()
    run = script("report", "runs=r", "control=dat_lambda0", "resamples=100")
    assert run.returncode == 0, run.stderr
    names = {path.name for path in report.iterdir()}
    assert {name for name in names if name.startswith(("across", "search"))} == {
        "across.csv", "across-forest-1.png", "across-dose-1.png", "searches.csv",
        "search-1-budget.png",
    }  # fmt: skip
    page = (report / "index.html").read_text()
    assert 'alt="Forest plot of dat − dat_lambda0' in page and 'alt="Expected best' in page
    text = (report / "report.md").read_text()
    tex = (report / "tables.tex").read_text()
    assert r"mean of 3 data sets, all data & \textbf{$+$" in tex and tex.isascii()
    for output in (run.stdout, text, page):
        places = [
            output.index(words)
            for words in ("Differences across data sets", "dat − dat_lambda0 is ", "Search search")
        ]
        assert places == sorted(places)
    across = list(csv.DictReader((report / "across.csv").open()))
    assert [row["data"] for row in across] == ["one", "three", "two", "mean of 3"]
    assert float(across[0]["over_users"]) > 0 and float(across[3]["p"]) < 1
    assert [row["variant"] for row in csv.DictReader((report / "searches.csv").open())] == [
        "dat", "dat", "'=mf", "'=mf"
    ]  # fmt: skip
    # a search alone has a report too, without the folders of its trials
    shutil.rmtree(search / "dat-0")
    assert script("report", "runs=r/search", "resamples=100").returncode == 0
    text = (search / "report" / "report.md").read_text()
    assert text.startswith("**Search search (one, random)**") and "NDCG" not in text


def test_kept_records_give_the_same_report_and_hold_no_items(script, tmp_path):
    for gain, (name, weight) in enumerate([("dat_lambda0", 0), ("dat", 1)]):
        settings = {f"loss.lambda{place}": weight for place in (1, 2, 3)}
        make_variant(tmp_path / "r", 0.2 * gain, (0, 1), [f"variant={name}"], settings)
    search = tmp_path / "r" / "search"
    search.mkdir()
    (search / "search.yaml").write_text("{metric: val/ndcg@10, data: one, sampler: random}")
    (search / "trials.csv").write_text("variant,number,state,value,seconds\ndat,0,complete,.1,9\n")
    assert script("report", "runs=r", "resamples=100", "keep=kept").returncode == 0
    assert script("report", "runs=kept", "resamples=100").returncode == 0
    for name in ("tables.csv", "searches.csv"):
        files = [tmp_path / folder / "report" / name for folder in ("r", "kept")]
        assert files[0].read_text() == files[1].read_text(), name
    assert float(rows(script, "kept/report")["dat"]["users p"]) < 0.05
    kept = pl.read_parquet(next(tmp_path.glob("kept/*dat,seed=0/test_ranks.parquet")))
    assert kept["item"].unique().to_list() == [0] and kept["category"].unique().to_list() == [-1]
    assert kept["user"].to_list() == list(range(400))
    again = script("report", "runs=[r,r/search/../search]", "resamples=100", "keep=kept")
    assert again.returncode == 0, again.stderr
    shutil.copytree(search, tmp_path / "r" / "other" / "search")
    shutil.rmtree(tmp_path / "r" / "report")
    twice = script("report", "runs=r", "resamples=100", "keep=twice")
    assert twice.returncode == 1 and "two folders are named search" in twice.stderr
    assert not (tmp_path / "twice").exists() and not (tmp_path / "r" / "report").exists()
