"""The cache with real processes: full disk, no permission, SIGKILL, several processes at once."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, make_data
from tests.helpers.waiting import wait_until
from twotower.data.readers.synthetic import Synthetic
from twotower.errors import UserError
from twotower.files import crc32


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
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_leaves_nothing(script, small_disk):
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
    assert not list(
        (tmp_path / "cache").glob("*.lock")
    )  # neither lock nor temporary file was tried


@pytest.mark.slow
def test_killed_during_preparation(script):
    cache = script.folder / "cache"
    settings = ("data.reader.num_users=60000", "debug=smoke")
    process = script.popen("train", *settings)
    wait_until(lambda: list(cache.glob(".synthetic-*")), process)  # it writes now
    process.kill()
    process.wait()
    assert not [path for path in cache.glob("synthetic-*") if path.is_dir()] and list(
        cache.glob(".synthetic-*")
    )
    assert script("train", *settings, "hydra.run.dir=run").returncode == 0
    assert script.metrics("run")["status"] == "completed" and not list(cache.glob(".synthetic-*"))


@pytest.mark.slow
def test_two_processes_prepare_once(script):
    settings = ("data.reader.num_users=60000", "debug=smoke")
    both = [script.popen("train", *settings, f"hydra.run.dir=run{number}") for number in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (
        sum("another process is preparing synthetic: waiting for it" in text for text in errors)
        == 1
    )
    assert script.metrics("run0")["data_fingerprint"] == script.metrics("run1")["data_fingerprint"]
    assert len([path for path in (script.folder / "cache").iterdir() if path.is_dir()]) == 1


@pytest.mark.slow
def test_the_processes_of_one_run_prepare_once(script):
    """As torchrun starts them: at once, with an empty cache."""
    settings = (
        "data.reader.num_users=60000",
        "debug=smoke",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "hydra.run.dir=run",
    )
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29577",
        "WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "test",
    }
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
    assert (
        sum("another process is preparing synthetic: waiting for it" in text for text in errors)
        == 1
    )
    assert script.metrics("run")["status"] == "completed"


def test_data_are_read_once_for_all_starts(tmp_path):
    for _ in range(3):
        make_data(tmp_path, Counted(tmp_path / "log")).setup()
    assert (tmp_path / "log").read_text() == "read\n"


def test_fingerprint_is_of_the_content(tmp_path):
    first, second, other = (
        make_data(tmp_path / name, **changes)
        for name, changes in [("a", {}), ("b", {}), ("c", {"k_core": 7})]
    )
    for module in (first, second, other):
        module.setup()
    assert first.fingerprint == second.fingerprint != other.fingerprint


def test_each_dose_has_its_own_folder(tmp_path):
    changes = (
        {},
        {"max_per_user": 5},
        {"max_per_user": 6},
        {"max_per_user": 5, "thinning_seed": 1},
    )
    folders = [make_data(tmp_path, **each).preparation.folder for each in changes]
    assert len(set(folders)) == 4
    assert make_data(tmp_path, thinning_seed=1).preparation.folder == folders[0]  # nothing is drawn
    assert "max_per_user" not in make_data(tmp_path).options.plain()["filters"]  # the key of old


@pytest.mark.parametrize("name", ["meta.json", "interactions.item.npy", "item.parquet"])
@pytest.mark.parametrize("damage", ["cut", "missing", "nested"])
def test_a_damaged_cache_is_prepared_again(tmp_path, capsys, name, damage):
    log = tmp_path / "log"
    module = make_data(tmp_path, Counted(log))
    module.setup()
    whole = (module.preparation.folder / name).read_bytes()
    if damage == "missing":
        (module.preparation.folder / name).unlink()
    else:
        content = whole[: len(whole) // 2] if damage == "cut" else b"[" * 100_000
        (module.preparation.folder / name).write_bytes(content)
    capsys.readouterr()
    again = make_data(tmp_path, Counted(log))
    again.setup()
    said = " ".join(capsys.readouterr().err.split())
    assert (
        f"the prepared data in {module.preparation.folder} are damaged" in said
        and said.count("they are prepared again") == 1
    )
    assert again.fingerprint == module.fingerprint and log.read_text() == "read\n" * 2


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def link_to_endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["meta.json", "group.npy"])
@pytest.mark.parametrize("replace", [make_pipe, link_to_endless])
def test_what_never_ends_is_a_damaged_cache(tmp_path, capsys, name, replace):
    module = make_data(tmp_path)
    module.setup()
    replace(module.preparation.folder / name)
    make_data(tmp_path).setup()
    assert "it is not an ordinary file): they are prepared again" in " ".join(
        capsys.readouterr().err.split()
    )


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_objects(path):
    np.save(path, np.array([Touch(path.with_name("ran"))], dtype=object), allow_pickle=True)


def write_pickle(path):
    path.write_bytes(pickle.dumps(Touch(path.with_name("ran"))))


def write_archive(path):
    with path.open("wb") as file:
        np.savez(file, numbers=np.zeros(3))


def write_odd_header(path):
    path.write_bytes(b"\x93NUMPY\x02\x00" + (1000).to_bytes(4, "little") + b"(" * 999 + b"\n")


@pytest.mark.parametrize("write", [write_objects, write_pickle, write_archive, write_odd_header])
def test_only_plain_arrays_are_read(tmp_path, capsys, write):
    """Even where the checksum fits, as it does when somebody means harm."""
    module = make_data(tmp_path)
    module.setup()
    path = module.preparation.folder / "group.npy"
    write(path)
    meta = json.loads((module.preparation.folder / "meta.json").read_text())
    meta["checksums"]["group.npy"] = crc32(path)
    (module.preparation.folder / "meta.json").write_text(json.dumps(meta))
    make_data(tmp_path).setup()
    said = " ".join(capsys.readouterr().err.split())
    assert "they are prepared again" in said and "allow_pickle" not in said
    assert not list(tmp_path.rglob("ran"))


class Filed(Counted):
    """Has a raw file, or had one."""

    def sources(self, data_dir):
        return [data_dir / "raw.csv"]


class Gone(Filed):
    """The raw file cannot be read any more."""

    def read(self, data_dir):
        raise AssertionError("it was read")


class NotMadeUp:
    """A reader as it is, which is not known to make its data up."""

    def __init__(self, reader):
        self.reader = reader

    def __getattr__(self, name):
        return getattr(self.reader, name)


def test_a_damaged_cache_without_raw_files_is_named(tmp_path):
    reader = NotMadeUp(Filed(tmp_path / "log"))
    module = make_data(tmp_path, reader)
    module.setup()
    (module.preparation.folder / "item.parquet").unlink()
    for _ in range(2):
        with pytest.raises(
            UserError,
            match=r"the prepared data in .* are damaged .*: delete that folder and run again",
        ):
            make_data(tmp_path, reader).setup()
    (module.preparation.folder / "meta.json").write_text("{}")
    with pytest.raises(UserError, match=r"are damaged .*: delete that folder and run again"):
        make_data(tmp_path, reader).setup()


def test_preparing_anew_keeps_the_old_data_until_the_new_are_there(tmp_path):
    module = make_data(tmp_path, Counted(tmp_path / "log"))
    module.setup()
    gone = make_data(tmp_path, Gone(tmp_path / "log"))
    assert gone.preparation.folder == module.preparation.folder
    with pytest.raises(AssertionError, match="it was read"):
        gone.preparation.load(force=True)
    gone.setup()
    assert gone.fingerprint == module.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 20])
def test_killed_at_every_write_while_a_cache_is_replaced(tmp_path, step):
    run = subprocess.run(
        [sys.executable, "-m", "tests.data.kill_preparation", str(tmp_path), str(step), "polars"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "PYTHONPATH": "src"},
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(run.stdout.split()[1]) >= (90 if step == 1 else 4), run.stdout


def test_meta_is_plain_json(tmp_path):
    module = make_data(tmp_path)
    module.setup()
    meta = json.loads((module.preparation.folder / "meta.json").read_text())
    assert meta["num_users"] == 60 and set(meta["checksums"]) >= {
        "interactions.user.npy",
        "item.parquet",
    }


def test_good_data_are_read_and_what_a_killed_process_left_beside_them_goes(tmp_path):
    """But not what a process is writing just now."""
    module = make_data(tmp_path)
    module.setup()
    left = [
        module.preparation.folder.with_name(f".{module.preparation.folder.name}.a1b2c3d4{end}")
        for end in (".partial", ".old")
    ]
    for path in left:
        path.mkdir()
    with module.preparation.alone():  # which puts things right itself
        left[0].mkdir()
        make_data(tmp_path).setup()
        assert left[0].exists()
    for path in left:
        path.mkdir(exist_ok=True)
    make_data(tmp_path).setup()
    assert not any(path.exists() for path in left)


def test_raw_ids_are_read_when_they_are_used(tmp_path):
    """An evaluation holds no raw ids, which grow with the users."""
    make_data(tmp_path).setup()
    data = make_data(tmp_path)
    data.setup()
    assert data.ids._read == {} and set(data.ids) >= {"user", "item"} and data.ids.get("no") is None
    list(map(data.eval_batch, data.test_dataloader()))
    next(iter(data.train_dataloader()))
    assert data.ids._read == {}
    users = data.ids["user"]
    assert len(users) == data.meta["num_users"] and data.ids["user"] is users
    path = data.preparation.folder / "item.parquet"
    path.write_bytes(path.read_bytes()[:-1])  # such as by a preparation of other files
    with pytest.raises(UserError, match=r"item\.parquet has changed since this process has begun"):
        data.ids["item"]
