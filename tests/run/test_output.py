"""What whole processes print: in a file at once, on a terminal of 80 columns in whole lines."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

from tests.conftest import ROOT
from tests.helpers.runs import SMALL
from tests.helpers.waiting import finish

SHOWN = tuple(text for text in SMALL if "progress" not in text)
EPOCH = r"epoch \d/2  loss \d\.\d+  ndcg@10 \.\d{4} \(best[^)]*\)  [\d.]+ s(  ~[\d.]+ s left)?"


@pytest.mark.slow
def test_a_file_has_each_epoch_at_its_end_and_ctrl_c_names_the_command_that_continues(script):
    process = script.popen(
        "train", *SHOWN, "trainer.max_epochs=500", "callbacks.early_stopping=null"
    )
    lines = []
    while not lines or not lines[-1].startswith("epoch   2/500"):
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert process.returncode == 130
    text = "".join(lines) + out
    assert "\x1b" not in text and "━" not in text and "\n\n" not in text
    (last,) = script.folder.glob("outputs/*/*/checkpoints/last.ckpt")
    assert f"\nfolder   {last.parents[1].relative_to(script.folder)}\n" in text
    command = f"python src/train.py ckpt_path={last.relative_to(script.folder)}"
    assert err.splitlines()[-1] == f"interrupted; continue with: {command}"


@pytest.mark.slow
def test_a_terminal_of_80_columns_has_whole_lines_beside_the_bar(script):
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    env = {key: value for key, value in script.env.items() if key != "COLUMNS"}
    command = [sys.executable, str(ROOT / "src" / "train.py"), *SHOWN, "trainer.max_epochs=2"]
    process = subprocess.Popen(
        command,
        cwd=script.folder,
        env={**env, "TERM": "xterm"},
        stdin=inside,
        stdout=inside,
        stderr=inside,
    )
    os.close(inside)
    output = b""
    try:
        while part := os.read(terminal, 65536):
            output += part
    except OSError:  # the process has closed the other side
        pass
    os.close(terminal)
    assert process.wait() == 0, output
    text = output.decode()
    for what in ("epoch 1/2 ", "validation ", "test ", "test of popularity ", "test of oracle "):
        assert re.search(rf"{what} *\x1b\[\S*━", text), what
    *_, after = text.rpartition("\x1b[2K")  # the last bar is cleared before the table
    assert "dat on synthetic, seed 0" in after
    lines = [re.sub(r"\x1b\[[\d;?]*\w", "", line) for line in re.split(r"[\r\n]+", text)]
    assert len([line for line in lines if re.fullmatch(EPOCH, line)]) == 2, lines
    ends = [line for line in lines if line.startswith("training ends: ")]
    assert ends and ends[0].startswith("training ends: trainer.max_epochs=2 is reached; best .")
    folders = [line for line in lines if line.split()[-1:] and "-dat-synthetic" in line.split()[-1]]
    assert len(folders) == 2  # at the start and at the end
    limit = [line for line in lines if len(line) > 80 and not line.startswith("warning")]
    assert not limit


def test_a_run_says_first_what_it_works_on(script):
    small = (*SMALL, "trainer.max_epochs=1")
    lines = script("train", *small, "hydra.run.dir=run").stdout.splitlines()
    assert [line.split()[0] for line in lines[:6]] == [
        "model",
        "data",
        "targets",
        "steps",
        "device",
        "folder",
    ]
    assert re.fullmatch(r"model    dat, \d+,\d{3} parameters", lines[0])
    assert lines[1] == "data     synthetic: 148 users, 77 items"
    assert re.fullmatch(r"targets  [\d,]+ to train, 148 to validate, 148 to test", lines[2])
    assert re.fullmatch(r"steps    \d+ an epoch, batch 64 per process", lines[3])
    assert lines[4].startswith("device   cpu, processes: 1, threads: up to ")
    assert lines[5] == "folder   run" and max(map(len, lines)) <= 80
    closed = script("train", *small, "model=popularity").stdout.splitlines()
    assert closed[0] == "model    popularity, fitted in closed form"
    assert not [line for line in closed if line.startswith(("epoch", "training ends"))]
