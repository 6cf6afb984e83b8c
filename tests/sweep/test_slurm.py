"""Sweeps on SLURM, whose four commands are made up here: job arrays, killed and repeated."""

import os
import signal
import sys

import pytest

from tests.helpers.runs import SMALL
from tests.helpers.waiting import finish, wait_until

SBATCH = """
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
here = os.environ["FAKE_SLURM"]
job = 1 + sum(name.startswith("job") for name in os.listdir(here))
open(f"{here}/job{job}", "w").write(text)
found = re.search(r"--array=0-(\\d+)%(\\d+)", text)
tasks = range(int(found[1]) + 1) if found else [None]
runner = f'''
import os, subprocess
for task in {list(tasks)}:
    name = "{job}" if task is None else f"{job}_{{task}}"
    env = dict(os.environ, SLURM_JOB_ID="{job}", SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1",
               SLURM_NODEID="0", SLURM_JOB_NODELIST="node", SLURM_PROCID="0", SLURM_LOCALID="0")
    if task is not None:
        env.update(SLURM_ARRAY_JOB_ID="{job}", SLURM_ARRAY_TASK_ID=str(task))
    open(f"{here}/state_{{name}}", "w").write("RUNNING")
    code = subprocess.run(["bash", "{sys.argv[1]}.copy"], env=env).returncode
    open(f"{here}/state_{{name}}", "w").write("FAILED" if code else "COMPLETED")
'''
open(f"{sys.argv[1]}.copy", "w").write(text)
quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
subprocess.Popen([sys.executable, "-c", runner], start_new_session=True, **quiet)
print(f"Submitted batch job {job}")
"""
SRUN = """
import os, sys
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[: 1 if command[0] == "--unbuffered" else 2]
os.execvp(command[0], command)
"""
SACCT = """
import os
here = os.environ["FAKE_SLURM"]
print("JobID|State|NodeList")
for name in os.listdir(here):
    if name.startswith("state_"):
        print(name.removeprefix("state_"), open(f"{here}/{name}").read(), "node", sep="|")
"""
SWEEP = (
    *("-m", "data.reader.num_users=60", "data.reader.num_items=30"),
    *("data.reader.interactions_per_user=10", *SMALL[3:], "seed=0,1,2", "trainer.max_epochs=2"),
)
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.array_parallelism=2")


@pytest.fixture
def slurm(script):
    """The folder where the commands keep what was submitted, and its jobs' states."""
    folder, commands = script.folder / "slurm", script.folder / "bin"
    folder.mkdir()
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": ""}.items():
        (commands / name).write_text(f"#!{sys.executable}\n{text}")
        (commands / name).chmod(0o755)
    script.env |= {"PATH": f"{commands}:{os.environ['PATH']}", "FAKE_SLURM": str(folder)}
    return folder


def outcomes(script):
    sweep = script.folder / "outputs" / "sweeps"
    paths = sorted(sweep.glob("*/*/metrics.json"))
    return {path.parent.name: script.metrics(str(path.parent))["test"] for path in paths}


def submitted(folder):
    return [path.read_text() for path in sorted(folder.glob("job*"))]


@pytest.mark.slow
def test_a_sweep_is_a_job_array_and_can_be_killed(script, slurm):
    assert script("train", *SWEEP).returncode == 0
    expected = outcomes(script)
    assert len(expected) == 3
    (script.folder / "outputs").rename(script.folder / "basic")
    first = script.popen("train", *SWEEP, *SLURM)
    wait_until(lambda: outcomes(script), first)
    os.kill(first.pid, signal.SIGKILL)
    finish(first)
    (text,) = submitted(slurm)
    assert "#SBATCH --array=0-2%2" in text
    again = script.popen("train", *SWEEP, *SLURM)
    out, err = finish(again)
    assert again.returncode == 0, err
    assert "already done" in out and out.count("done") >= 3
    assert outcomes(script) == expected
    # what was finished is not submitted again
    assert len(submitted(slurm)) == 2 and "--array=0-2" not in submitted(slurm)[1]
