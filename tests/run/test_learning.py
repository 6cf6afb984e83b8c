"""The learning curve of a run, by hand and after a training."""

import pytest
from matplotlib.figure import Figure

from tests.helpers.pictures import faults
from tests.helpers.runs import SMALL
from twotower.run import learning
from twotower.run.run_folder import RunFolder

LOG = """epoch,step,train/loss,val/mrr
0,4,3,
0,9,,.1
1,14,2,
1,19,,.3
2,24,1,
2,24,,.2
"""  # ten steps an epoch, and the last one stopped after its half


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "metrics.csv").write_text(LOG)
    return RunFolder(tmp_path)


def drawn(monkeypatch, folder, record):
    """The figure that would be saved; None without one."""
    saved = []
    monkeypatch.setattr(learning, "save_figure", lambda figure, path: saved.append((figure, path)))
    learning.draw(folder, record, "mrr")
    if not saved:
        return None
    ((figure, path),) = saved
    assert path == folder.plots / "learning.png"
    return figure


def test_values_are_placed_by_the_epochs_trained(folder):
    assert learning.by_epoch(folder.path, "train/loss") == [(0.5, 3), (1.5, 2), (2.5, 1)]
    assert learning.by_epoch(folder.path, "val/mrr") == [(1, 0.1), (2, 0.3), (2.5, 0.2)]


def test_the_best_epoch_and_popularity_are_marked(monkeypatch, folder):
    record = {"val": {"mrr": 0.3}, "test": {"mrr": 0.25}, "popularity": {"mrr": 0.05}}
    figure: Figure = drawn(monkeypatch, folder, record)
    left, right = figure.axes
    assert [left.get_ylabel(), right.get_ylabel()] == ["loss", "mrr"]
    best, test, popularity = [line for line in right.lines if line.get_label()[0] != "_"]
    assert best.get_label() == "best epoch: 2" and best.get_xydata().tolist() == [[2, 0.3]]
    assert test.get_ydata() == [0.25, 0.25] and popularity.get_ydata() == [0.05, 0.05]
    assert faults(figure) == []


def test_older_records_have_no_popularity(monkeypatch, folder):
    record = {"val": {"mrr": 0.3}, "test": {"mrr": 0.25}}
    assert faults(drawn(monkeypatch, folder, record)) == []


@pytest.mark.parametrize("log", [None, "", "epoch,step,val/mrr\n0,9,.1\n"])
def test_no_course_no_picture(monkeypatch, tmp_path, log):
    if log is not None:
        (tmp_path / "metrics.csv").write_text(log)
    assert drawn(monkeypatch, RunFolder(tmp_path), {"val": {"mrr": 0.1}}) is None


def test_each_run_has_one_also_without_diagnostics(script):
    run = script("train", *SMALL, "trainer.max_epochs=2", "hydra.run.dir=run")
    assert run.returncode == 0 and "left out" not in run.stderr, run.stderr
    plots = script.folder / "run" / "plots"
    assert [path.name for path in plots.iterdir()] == ["learning.png"]
