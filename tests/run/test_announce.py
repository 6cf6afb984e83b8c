"""Warnings of a run: few steps, cold validation targets, no better than popularity, collapse."""

import pytest

from tests.conftest import make_data
from tests.helpers.table import reader
from twotower.data.splits import Temporal
from twotower.run.announce import warn_of_data, warn_of_result


def make_clicks(folder, last):
    """Five users with four clicks on items 1 to 4, then validation and a test click."""
    rows = [f"{user},{item},{4 * user + item}" for user in range(5) for item in range(1, 5)]
    rows += [f"{user},{item},{30 + place}" for place, (user, item) in enumerate(last)]
    rows.append("0,4,50")
    (folder / "raw").mkdir()
    (folder / "raw" / "clicks.csv").write_text("\n".join(["user,item,time", *rows, ""]))
    table = reader(interactions="clicks.csv", time_unit="step")
    data = make_data(folder, table, split=Temporal(30, 40, 0), duplicates="all", batch_size=1)
    data.setup()
    return data


@pytest.mark.parametrize(
    ("last", "line"),
    [
        (((0, 1), (1, 2), (2, 3)), ""),
        (((0, 1), (1, 8), (2, 9), (3, 2)), ""),  # half of the targets
        (((0, 1), (1, 8), (2, 9)), "67% of the validation targets are of users or items without"),
        (((0, 1), (7, 2), (7, 9), (8, 3)), "75% of the validation targets are of users or items"),
    ],
)
def test_cold_validation_targets(tmp_path, capsys, last, line):
    data = make_clicks(tmp_path, last)
    warn_of_data(data)
    lines = capsys.readouterr().err
    assert "an epoch has 20 steps: lower data.batch_size=1" in lines
    assert (line in lines) if line else ("cold" not in lines and "targets" not in lines)


def test_enough_steps(data, capsys):
    num = len(data.tables["position/train"])
    data.batch_size = num // 50
    warn_of_data(data)
    assert capsys.readouterr().err == ""
    data.batch_size = num // 40
    warn_of_data(data)
    assert "an epoch has 4" in capsys.readouterr().err
    data.batch_size = num // 80
    warn_of_data(data)
    assert capsys.readouterr().err == ""
    warn_of_data(data, num_processes=2)  # each has half of the batches
    assert "an epoch has 4" in capsys.readouterr().err
    warn_of_data(data, has_steps=False, num_processes=2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("model", "test", "words"),
    [
        ("dat", {"ndcg@10": 0.21, "item_cosine": 0.95}, []),
        ("dat", {"ndcg@10": 0.2}, ["not above popularity: test ndcg@10 0.2000, popularity 0.2000"]),
        ("popularity", {"ndcg@10": 0.2, "item_cosine": 1.0}, []),
        ("dat", {"ndcg@10": 0.3, "item_cosine": 0.96}, ["a cosine of 0.96 on average"]),
        ("dat", {"mrr": 0.1, "item_cosine": 0.99}, ["a cosine of 0.99 on average"]),
        ("dat", {"ndcg@10": 0.1, "item_cosine": 0.99}, ["popularity", "cosine"]),
    ],
)
def test_results_that_need_a_word(capsys, model, test, words):
    record = {"model": model, "test": test, "popularity": {"ndcg@10": 0.2}}
    warn_of_result(record, "val/ndcg@10")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert line.startswith("warning: ") and word in line
