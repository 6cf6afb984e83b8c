"""Two processes that run scripts together, with the variables that torchrun sets."""

import multiprocessing
import os
import socket
from multiprocessing.connection import Connection, wait
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch.distributed as dist

from tests.conftest import Script


class Pair:
    """Serves many tests, as starting Python with torch takes longer than their trainings."""

    def __init__(self) -> None:
        self.processes: list[Any] = []
        self.ends: list[Connection] = []

    def __call__(self, script: Script, name: str, *overrides: str) -> None:
        """Run ``python src/<name>.py`` in both, in the folder of ``script``.

        Raises:
            AssertionError: if it fails in one of them; the other is ended, as it may wait.
        """
        if not self.processes:
            self._start()
        settings = {**script.env, "MASTER_PORT": str(free_port())}
        for end in self.ends:
            end.send((script.folder, settings, name, overrides))
        left = list(self.ends)
        while left:
            for end in wait(left):
                answer = _answer(end)
                if answer.returncode != 0:
                    self.end()
                    raise AssertionError(answer.stderr)
                left.remove(end)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.ends.append(ours)

    def end(self) -> None:
        """End both; the next call starts new ones."""
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.ends = [], []


def _answer(end: Connection) -> CompletedProcess:
    try:
        return end.recv()
    except EOFError:
        return CompletedProcess((), 1, "", "the process ended without a result")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _serve(rank: int, end: Connection) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "tests", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    os.environ.update(variables)
    folder: Path
    while True:
        folder, settings, name, overrides = end.recv()
        script = Script(folder, pytest.MonkeyPatch())
        script.env = {**settings, **variables}
        done = script(name, *overrides)
        if dist.is_initialized():
            dist.destroy_process_group()
        end.send(done)
