"""Accelerators and devices that this machine does not have end in one line that names the setting."""

import pytest
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

from tests.helpers.composition import compose_train
from twotower.errors import UserError
from twotower.run.build import _check_machine, build_part
from twotower.run.checks.checks import check_config


@pytest.fixture
def cpu_alone(monkeypatch):
    for accelerator in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.parametrize("name", ["gpu", "cuda", "mps", "tpu"])
def test_an_accelerator_that_is_not_there_is_named(cpu_alone, name):
    with pytest.raises(
        UserError, match=f"trainer.accelerator={name}: torch finds none on this machine"
    ):
        build_part(compose_train(f"trainer.accelerator={name}"), "trainer", logger=False)


def test_an_unknown_accelerator_is_refused_before_torch_is_imported():
    with pytest.raises(
        UserError, match=r"trainer\.accelerator must be 'auto', 'cpu', .* got 'npu'"
    ):
        check_config(compose_train("trainer.accelerator=npu"))


@pytest.mark.parametrize("devices", [-1, "-1", "0,1", [0, 1]])
@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_cpu_has_processes_and_no_devices(cpu_alone, name, devices):
    with pytest.raises(UserError, match="on a CPU it is a number of processes"):
        _check_machine({"accelerator": name, "devices": devices})


@pytest.mark.parametrize("devices", [3, "3", [0, 2], "2,"])
def test_devices_beyond_those_of_the_machine_are_named(two_gpus, devices):
    with pytest.raises(UserError, match=r"trainer\.devices=.*: this machine has 2"):
        _check_machine({"accelerator": "gpu", "devices": devices})


@pytest.mark.parametrize("devices", [1, 2, "2", [0, 1], "0,1", "1,", -1, "auto"])
def test_devices_of_the_machine_are_taken(two_gpus, devices):
    _check_machine({"accelerator": "auto", "devices": devices})
