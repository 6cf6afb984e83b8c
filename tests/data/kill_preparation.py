"""Prepare data again and again, killed at one file-system call after another.

Run as ``python -m tests.data.kill_preparation FOLDER STEP ENGINE``.
Processes are forked, because a start of Python takes seconds.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path

from tests.conftest import make_data
from twotower.data.readers.synthetic import Synthetic

WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "open", "shutil.rmtree"}


def child(work):
    """The exit status of a forked process."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def prepare(folder, engine, last):
    """Prepare anew; die before the file-system call number ``last`` below the cache."""
    count = 0

    def die(event, arguments):
        nonlocal count
        if event in WRITES and str(folder / "cache") in str(arguments[0]):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    make_data(folder, engine=engine).preparation.load(force=True)


def check(folder):
    """The data are there without being prepared again, and nothing lies beside them."""

    def refuse(*_):
        raise AssertionError("prepared again")

    data = make_data(folder)
    Synthetic.read = refuse
    data.setup()
    with data.preparation.alone():
        pass
    left = sorted(path.name for path in (folder / "cache").iterdir())
    assert left == [data.preparation.folder.name, data.preparation.folder.name + ".lock"], left


def main(folder, step, engine):
    assert child(partial(prepare, folder, engine, 0)) == 0
    num = 0
    while (status := child(partial(prepare, folder, engine, 1 + num * step))) == signal.SIGKILL:
        assert child(partial(check, folder)) == 0, num
        num += 1
    assert status == 0
    print(f"killed {num} times")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
