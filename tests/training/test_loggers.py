"""The table of a run's metrics: a resumed run's is an undisturbed run's."""

import pytest
import torch

from twotower.errors import UserError
from twotower.run.build import construct
from twotower.run.cli import explain
from twotower.training.loggers.csv_logger import RunCSVLogger

CALLS = [
    ({"train/loss": 0.5}, 0),
    ({"train/loss": torch.tensor(0.25)}, 1),
    ({"val/ndcg@10": 0.1, "epoch": 0}, 1),
    ({"train/loss": 0.125}, 2),
    ({"test/mrr": 1 / 3}, 3),
]
WHOLE = (
    b"epoch,step,test/mrr,train/loss,val/ndcg@10\r\n,0,,0.5,\r\n,1,,0.25,\r\n0,1,,,0.1\r\n"
    b",2,,0.125,\r\n,3,0.3333333333333333,,\r\n"
)


def log(folder, calls, resume=None):
    logger = RunCSVLogger(str(folder))
    if resume is not None:
        logger.resume(resume)
    for metrics, step in calls:
        logger.log_metrics(metrics, step)
    logger.save()
    return (folder / "metrics.csv").read_bytes()


def test_columns_are_in_order_whenever_they_come(tmp_path):
    assert log(tmp_path, CALLS) == WHOLE


@pytest.mark.parametrize("done", range(len(CALLS)))
@pytest.mark.parametrize("lost", [1, 5, 20])
def test_rows_after_the_checkpoint_come_again(tmp_path, done, lost):
    """A killed run got as far as its last row, of which the end may be missing."""
    for killed in range(done, len(CALLS)):
        if killed:
            text = log(tmp_path, CALLS[:killed])
            if killed > done:  # what a checkpoint counts is whole
                (tmp_path / "metrics.csv").write_bytes(
                    text[:-lost] if killed - done > 1 else text[:-1]
                )
        else:
            (tmp_path / "metrics.csv").unlink(missing_ok=True)
        assert log(tmp_path, CALLS[done:], resume=done) == WHOLE, killed


def test_killed_again_before_its_first_row_it_has_all_rows(tmp_path):
    log(tmp_path, CALLS[:3])
    logger = RunCSVLogger(str(tmp_path))
    logger.resume(2)
    logger.save()
    assert log(tmp_path, CALLS[2:], resume=2) == WHOLE


def test_a_column_of_rows_that_are_cut_is_gone(tmp_path):
    log(tmp_path, [*CALLS[:2], ({"old": 1}, 2)])
    assert log(tmp_path, CALLS[2:], resume=2) == WHOLE


def test_a_new_run_starts_the_table_anew(tmp_path):
    log(tmp_path, [({"old": 1}, 0)])
    assert log(tmp_path, CALLS) == WHOLE


def test_a_checkpoint_that_counts_no_rows_loses_none(tmp_path):
    log(tmp_path, CALLS[:3])
    logger = RunCSVLogger(str(tmp_path))
    logger.resume(None)
    for metrics, step in CALLS[3:]:
        logger.log_metrics(metrics, step)
    assert (tmp_path / "metrics.csv").read_bytes() == WHOLE


@pytest.mark.parametrize("content", [b"\xff\n", b"step\n" + b"1" * 200_000 + b"\n"])
def test_a_damaged_table_ends_in_one_line(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.csv is damaged"):
        RunCSVLogger(str(tmp_path)).resume(1)


def test_a_logger_that_is_not_installed_names_the_extra(monkeypatch):
    def missing(**settings):
        raise ModuleNotFoundError(
            "Neither `tensorboard` nor `tensorboardX` is available. HINT: pip install"
        )

    monkeypatch.setattr("pytorch_lightning.loggers.TensorBoardLogger", missing)
    node = {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "save_dir": "x"}
    with pytest.raises(UserError) as refused:
        construct("logger", node)
    assert explain(refused.value) == (
        "logger=tensorboard needs a package that is not installed: "
        "pip install 'twotower[tensorboard]'"
    )
