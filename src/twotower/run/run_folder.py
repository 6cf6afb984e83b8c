"""The run folder: paths, record, status and lock of a run."""

import os
import socket
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from twotower import locks, processes
from twotower.files import read_bytes, read_json, write_json

RECORD, FAILURE, LOG, HYDRA = "metrics.json", "failed.json", "metrics.csv", ".hydra"
SIGNS = (HYDRA, RECORD, FAILURE, LOG)  # a folder with any of them is a run folder
Status = Literal["new", "resume", "failed", "done", "changed"]


class RunFolder(NamedTuple):
    """Paths and state of one run.

    Attributes:
        path: of the folder.
    """

    path: Path

    @classmethod
    def of(cls, ckpt_path: str | Path) -> "RunFolder":
        """The folder of a checkpoint ``<run folder>/checkpoints/<name>.ckpt``."""
        return cls(Path(ckpt_path).absolute().parent.parent)

    @property
    def record(self) -> Path:
        """Settings and metrics, written once all metrics are known."""
        return self.path / RECORD

    @property
    def failure(self) -> Path:
        """Why a run of a sweep has failed."""
        return self.path / FAILURE

    @property
    def log(self) -> Path:
        """What was logged, a row for each call."""
        return self.path / LOG

    @property
    def ranks(self) -> Path:
        """The rank of each test target."""
        return self.path / "test_ranks.parquet"

    @property
    def plots(self) -> Path:
        """The learning curve and the pictures of the diagnostics."""
        return self.path / "plots"

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch by validation."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint to continue from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def config(self) -> Path:
        """The composed config, as Hydra wrote it."""
        return self.path / HYDRA / "config.yaml"

    @property
    def process(self) -> Path:
        """The process that trains in this folder; a killed one leaves it."""
        return self.path / ".process"

    @property
    def mark(self) -> Path:
        """Fingerprint of the config that a sweep runs in this folder."""
        return self.path / ".fingerprint"

    def status(self, fingerprint: str) -> Status:
        """The state of the run with this fingerprint.

        ``done``, ``failed``, ``resume`` (begun), ``new``, or ``changed``: the folder holds a run of
        another config.
        """
        if not any(path.exists() for path in (self.record, self.failure, self.last)):
            return "new"
        try:
            mark = read_bytes(self.mark, len(fingerprint))
        except (OSError, ValueError):
            return "changed"
        if mark != fingerprint.encode():
            return "changed"
        if self.read_record():
            return "done"  # a damaged record is written again
        return "failed" if self.failure.exists() else "resume"

    def alone(self) -> AbstractContextManager[int]:
        """Hold the lock of the folder, see :func:`twotower.locks.alone`."""
        waits = f"{self.path.name}: another process runs it; waiting for its end"
        lock = self.path.parent / ".locks" / self.path.name
        return locks.alone(lock, waits, lambda line: print(line, flush=True))

    def set_aside(self) -> Path:
        """Move a run of another config to ``<sweep>.earlier``, so that no report mixes them."""
        sweep = self.path.parent
        name = f"{self.path.name}@{time.strftime('%Y%m%d-%H%M%S')}"
        earlier = sweep.with_name(f"{sweep.name}.earlier") / name
        earlier.parent.mkdir(exist_ok=True)
        while earlier.exists():
            earlier = earlier.with_name(f"{earlier.name}_")
        return self.path.rename(earlier)

    def sign(self) -> None:
        """Name this process as the one that trains in this folder."""
        pid = os.getpid()
        started = processes.started(pid)
        write_json(self.process, {"pid": pid, "started": started, "host": socket.gethostname()})

    def is_running(self) -> bool:
        """Does the process that trains here still exist? One on another machine is taken to."""
        record = _read(self.process)
        if record.get("host") != socket.gethostname():
            return bool(record)
        pid = record.get("pid")
        if not isinstance(pid, int) or not 0 < pid < 2**31:  # damaged
            return False
        is_same = record.get("started") == processes.started(pid)  # ids are used again
        return is_same and processes.state(pid) != "gone"

    def read_record(self) -> dict[str, Any]:
        """``metrics.json``, empty if there is none or it is damaged."""
        return _read(self.record)

    def read_error(self) -> str:
        """Why the run has failed."""
        return str(_read(self.failure).get("error", f"{FAILURE} is damaged"))

    def write_failure(self, error: str, overrides: list[str]) -> None:
        """Write why a run of a sweep has failed."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        write_json(self.failure, {"error": error, "overrides": overrides, "time": when})


def records(place: Path) -> list[dict[str, Any]]:
    """The records of all runs below a folder."""
    return [_read(path) for path in place.glob(f"**/{RECORD}")]


def _read(path: Path) -> dict[str, Any]:
    """A record as JSON, empty if there is none or it is damaged."""
    try:
        record = read_json(path)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
