"""The trainer uses the processes that torchrun has started, or says that it cannot."""

import pytest

from twotower.errors import UserError
from twotower.run.trainer import build_trainer, with_all_processes

SETTINGS = {
    "_target_": "pytorch_lightning.Trainer",
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "enable_progress_bar": False,
}


@pytest.fixture
def by_torchrun(monkeypatch):
    """As in the first of two processes."""
    started = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in {**started, "TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "given",
    [{}, {"devices": "auto"}, {"devices": 4}, {"strategy": "ddp"}],
    ids=str,
)
def test_other_processes_than_those_of_torchrun_are_refused(by_torchrun, given):
    said = "torchrun has started 2 .* set trainer.devices=2 trainer.num_nodes=1 trainer.strategy"
    with pytest.raises(UserError, match=said):
        build_trainer({**SETTINGS, **given}, logger=False)


def test_the_processes_of_torchrun_are_taken(by_torchrun):
    assert (
        build_trainer({**SETTINGS, "devices": 2, "strategy": "ddp"}, logger=False).world_size == 2
    )
    for devices in (1, "auto", -1):
        found = with_all_processes({**SETTINGS, "devices": devices})
        assert (found["devices"], found["num_nodes"]) == (2, 1)
    assert with_all_processes({**SETTINGS, "devices": 4})["devices"] == 4


def test_without_torchrun_settings_are_kept():
    assert with_all_processes(SETTINGS) == SETTINGS
    assert build_trainer(SETTINGS, logger=False).world_size == 1


def test_spawned_processes_are_refused():
    with pytest.raises(UserError, match="that are spawned .* set trainer.strategy=ddp"):
        build_trainer({**SETTINGS, "devices": 2, "strategy": "ddp_spawn"}, logger=False)
