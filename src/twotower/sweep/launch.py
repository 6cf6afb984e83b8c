"""Runs a job of a sweep: alone in its folder, resumed where it stopped, its failure recorded, its processes its own."""

import gc
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from twotower import signals
from twotower.errors import UserError
from twotower.files import write_text
from twotower.run import train as run
from twotower.run.checkpoint.checkpoints import load_checkpoint
from twotower.run.checkpoint.trusted import UntrustedError
from twotower.run.cli import DEBUG, explain
from twotower.run.run_folder import RunFolder
from twotower.run.settings import fingerprint
from twotower.sweep.plan import quoted
from twotower.wording import masked

SCRIPT = Path(__file__).parents[2] / "train.py"


def train(config: DictConfig) -> dict[str, float] | None:
    """Train a job of a sweep: locked, resumed, its failure recorded.

    Raises:
        UserError: for whatever ended it; ``failed.json`` says it too.
    """
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    if _task() > 0:  # only SLURM task 0 writes lock and status
        config.ckpt_path = _last_checkpoint(folder, config.trusted)
        return run.train(config)
    with folder.alone() as lock:
        return _attempt(config, folder, lock)


def _attempt(config: DictConfig, folder: RunFolder, lock: int) -> dict[str, float] | None:
    expected = fingerprint(config)
    before = folder.status(expected)
    if before == "changed":
        raise UserError(f"{folder.path} holds a run of another config: move it away")
    if before == "done":  # by another process, while we waited for the lock
        print(f"{folder.path.name}: already done", flush=True)
        return folder.read_record().get("test")
    write_text(folder.mark, expected)
    try:
        config.ckpt_path = _last_checkpoint(folder, config.trusted)
        print(f"{folder.path.name}: {'goes on' if config.ckpt_path else 'starts'}", flush=True)
        found = (
            run.train(config)
            if _fits_this_process(config)
            else _in_own_process(config, folder, lock)
        )
    except Exception as error:
        signals.raise_if_asked()  # a process that was asked to end has not failed
        _record_failure(folder, error)
        raise UserError(
            _line(error)
        ) from None  # travels between processes, which not every exception does
    finally:
        _clean_up()
    folder.failure.unlink(missing_ok=True)
    print(f"{folder.path.name}: done", flush=True)
    return found


def _last_checkpoint(folder: RunFolder, trusted: str | Iterable[str] | None) -> str | None:
    """Where to go on; a file that was being written as its process was killed counts as none.

    Raises:
        UntrustedError: for a file that is whole: to train again would lose it.
    """
    if not folder.last.exists():
        return None
    try:
        load_checkpoint(folder.last, trusted=trusted)
    except UntrustedError:
        raise
    except UserError as error:
        print(f"{folder.path.name}: last.ckpt is damaged and is not used: {error}", flush=True)
        return None
    return str(folder.last)


def _record_failure(folder: RunFolder, error: Exception) -> None:
    if explain(error) is None and not isinstance(
        error, ChildProcessError
    ):  # a bug of ours, or of a library
        traceback.print_exception(error)
    overrides = [masked(text) for text in HydraConfig.get().overrides.task]
    folder.write_failure(masked(_line(error)), overrides)
    print(f"{folder.path.name}: failed: {_line(error)}", file=sys.stderr, flush=True)


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [""]
    return explain(error) or (
        text[0] if isinstance(error, ChildProcessError) else f"{type(error).__name__}: {text[0]}"
    )


def _task() -> int:
    """Which of the tasks we are that SLURM has started for one job."""
    return int(os.environ.get("SLURM_PROCID", 0)) if _num_tasks() > 1 else 0


def _num_tasks() -> int:
    return int(os.environ.get("SLURM_NTASKS", 1))


def _fits_this_process(config: DictConfig) -> bool:
    trainer = config.trainer
    alone = str(trainer.devices) == "1" and trainer.num_nodes == 1 and trainer.strategy == "auto"
    return alone or _num_tasks() > 1


def _in_own_process(config: DictConfig, folder: RunFolder, lock: int) -> dict[str, float] | None:
    """Run a job that starts processes as a script of its own.

    Lightning starts further processes by repeating the command line, which in a sweep is the whole sweep; it leaves addresses in
    the environment; and when one process dies it kills the others, the sweep's too. In a process whose command line is this job
    alone, the first is right, and the others end with the job.
    """
    overrides = [text for text in HydraConfig.get().overrides.task if not text.startswith("sweep=")]
    if config.ckpt_path:
        overrides.append(f"ckpt_path={quoted(config.ckpt_path)}")
    places = [text for text in HydraConfig.get().overrides.hydra if "searchpath" in text]
    output = f"hydra.run.dir={quoted(folder.path)}"
    fixed = [*places, output, "hydra.output_subdir=null", "hydra.mode=RUN"]
    command = [sys.executable, str(SCRIPT), *overrides, *fixed]
    said = ""
    environment = {key: value for key, value in os.environ.items() if key != DEBUG}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, pass_fds=[lock]
    ) as process:
        try:
            for line in process.stderr or ():
                if line.startswith("error: "):  # of each of its processes; told once at the end
                    said = line.strip()
                else:
                    sys.stderr.write(line)
                    said = said if said.startswith("error: ") else line.strip() or said
        except BaseException:  # it saves what it has before it ends
            process.terminate()
            process.communicate()
            raise
    if process.returncode < 0:
        raise ChildProcessError(
            f"the run's process was ended by {signal.Signals(-process.returncode).name}; last words: {said or 'none'}"
        )
    if process.returncode:
        raise ChildProcessError(
            said.removeprefix("error: ")
            or f"the run's process ended with code {process.returncode}"
        )
    return folder.read_record().get("test")


def _clean_up() -> None:
    """Leave nothing to the next job in this process."""
    gc.collect()
    torch.use_deterministic_algorithms(False)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
