"""The cache under bad luck, with real processes: a full disk, no permission, SIGKILL, several processes at once."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import make_data
from tests.waiting import wait_until
from twotower.data import store
from twotower.data.synthetic import Synthetic
from twotower.types import UserError


class Counted(Synthetic):
    """Counts how often it was read."""

    def __init__(self, log: Path) -> None:
        super().__init__(60, 40, 3, 6, 8, seed=1)
        self.log = log

    def read(self, data_dir):
        with self.log.open("a") as file:
            file.write("read\n")
        return super().read(data_dir)


def one_error(run):
    lines = run.stderr.strip().splitlines()
    assert run.returncode == 1 and len(lines) == 1 and lines[0].startswith("error: "), run.stderr
    return lines[0]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_room_is_seen_in_advance(script, small_disk):
    line = one_error(script("train", f"paths.cache_dir={small_disk}", "debug=smoke"))
    assert "MiB free: free space there, or set paths.cache_dir" in line
    assert not [path for path in small_disk.iterdir() if path.suffix != ".lock"]


def test_a_disk_that_fills_up_leaves_nothing(script, small_disk, monkeypatch):
    monkeypatch.setattr(store, "_check_room", lambda cache_dir, prepared: None)  # as if others wrote meanwhile
    line = one_error(script("train", f"paths.cache_dir={small_disk}", "debug=smoke"))
    assert f"{small_disk} cannot be written" in line and "set paths.cache_dir" in line
    assert not [path for path in small_disk.iterdir() if path.suffix != ".lock"]


def test_a_folder_that_cannot_be_written_is_named(script):
    folder = "/proc/twotower"  # nobody may write there, not even root
    line = one_error(script("train", f"paths.cache_dir={folder}", "debug=smoke"))
    assert f"{folder} cannot be written" in line and "set paths.cache_dir" in line


def test_a_cache_in_a_read_only_folder_is_used(tmp_path):
    make_data(tmp_path).setup()
    for path in (tmp_path / "cache").rglob("*"):
        if path.suffix == ".lock":
            path.unlink()
    (tmp_path / "cache").chmod(0o555)
    make_data(tmp_path).setup()
    (tmp_path / "cache").chmod(0o755)
    assert not list((tmp_path / "cache").glob("*.lock"))  # neither lock nor temporary file was tried


@pytest.mark.slow
def test_killed_during_preparation(script):
    cache = script.folder / "cache"
    settings = ("data.reader.num_users=60000", "debug=smoke")
    process = script.popen("train", *settings)
    wait_until(lambda: list(cache.glob(".synthetic-*")), process)  # it writes now
    process.kill()
    process.wait()
    assert not [path for path in cache.glob("synthetic-*") if path.is_dir()] and list(cache.glob(".synthetic-*"))
    assert script("train", *settings, "hydra.run.dir=run").returncode == 0
    assert script.metrics("run")["status"] == "completed" and not list(cache.glob(".synthetic-*"))


@pytest.mark.slow
def test_two_processes_prepare_once(script):
    settings = ("data.reader.num_users=60000", "debug=smoke")
    both = [script.popen("train", *settings, f"hydra.run.dir=run{number}") for number in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("another process is preparing synthetic: waiting for it" in text for text in errors) == 1
    assert script.metrics("run0")["data_fingerprint"] == script.metrics("run1")["data_fingerprint"]
    assert len([path for path in (script.folder / "cache").iterdir() if path.is_dir()]) == 1


@pytest.mark.slow
def test_the_processes_of_one_run_prepare_once(script):
    """As torchrun starts them: at once, with an empty cache."""
    settings = ("data.reader.num_users=60000", "debug=smoke", "trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=run")
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    processes = []
    for rank in range(2):
        script.env |= {
            **common,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "GROUP_RANK": "0",
            "LOCAL_WORLD_SIZE": "2",
        }
        processes.append(script.popen("train", *settings))
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert sum("another process is preparing synthetic: waiting for it" in text for text in errors) == 1
    assert script.metrics("run")["status"] == "completed"


def test_data_are_read_once_for_all_starts(tmp_path):
    for _ in range(3):
        make_data(tmp_path, Counted(tmp_path / "log")).setup()
    assert (tmp_path / "log").read_text() == "read\n"


def test_fingerprint_is_of_the_content(tmp_path):
    first, second, other = (
        make_data(tmp_path / name, **changes) for name, changes in [("a", {}), ("b", {}), ("c", {"k_core": 7})]
    )
    for module in (first, second, other):
        module.setup()
    assert first.fingerprint == second.fingerprint != other.fingerprint


@pytest.mark.parametrize("name", ["meta.json", "interactions.item.npy", "item.parquet"])
def test_a_damaged_cache_is_named(tmp_path, name):
    module = make_data(tmp_path)
    module.setup()
    content = (module.folder / name).read_bytes()
    (module.folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"the prepared data in .* are damaged .*delete that folder and run again"):
        make_data(tmp_path).setup()


def test_meta_is_plain_json(tmp_path):
    module = make_data(tmp_path)
    module.setup()
    meta = json.loads((module.folder / "meta.json").read_text())
    assert meta["num_users"] == 60 and set(meta["checksums"]) >= {"interactions.user.npy", "item.parquet"}
