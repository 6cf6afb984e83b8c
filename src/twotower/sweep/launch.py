"""Runs one job of a sweep: alone in its folder, resumed, with its failure recorded."""

import gc
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable
from multiprocessing import current_process
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from twotower import signals
from twotower.errors import UserError
from twotower.files import write_text
from twotower.run import train as run
from twotower.run.about import write_failure
from twotower.run.cli import DEBUG, explain, failure_line
from twotower.run.run_folder import RunFolder
from twotower.run.settings import fingerprint
from twotower.sweep.plan import quoted
from twotower.training.fused import lockstep

COMMAND = [sys.executable, "-m", "twotower", "train"]
ERROR = "error: "  # begins the line of a process that failed


def train(config: DictConfig) -> dict[str, float] | None:
    """Train a job of a sweep: locked, resumed, its failure recorded.

    Raises:
        UserError: for the cause of a failure; ``failed.json`` has it too.
    """
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    if _num_tasks() > 1 and os.environ.get("SLURM_PROCID", "0") != "0":
        # only SLURM task 0 writes lock and status
        config.ckpt_path = _last_checkpoint(folder)
        return run.train(config)
    with folder.alone() as lock:
        return _train_locked(config, folder, lock)


def _train_locked(config: DictConfig, folder: RunFolder, lock: int) -> dict[str, float] | None:
    expected, name = fingerprint(config), folder.path.name
    status = folder.status(expected)
    if status == "changed":
        raise UserError(f"{folder.path} holds a run of another config: move it away")
    if status == "done":  # finished by another process while we waited for the lock
        print(f"{name}: already done", flush=True)
        return folder.read_record().get("test")
    write_text(folder.mark, expected)
    config.ckpt_path = _last_checkpoint(folder)
    is_alone = current_process().name == "MainProcess" and lockstep.current() is None
    if not is_alone:  # several runs share one terminal or file
        for callback in {"progress", "epochs"} & set(config.callbacks):
            config.callbacks[callback] = None
    print(f"{name}: {'continues' if config.ckpt_path else 'starts'}", flush=True)
    try:
        metrics = (
            run.train(config)
            if _fits_this_process(config)
            else _train_in_own_process(config, folder, lock)
        )
    except Exception as error:
        signals.raise_if_asked()  # a process that was asked to end has not failed
        _record_failure(folder, error)
        # a UserError can be sent between processes, which not every exception can
        raise UserError(failure_line(error)) from None
    finally:
        if lockstep.current() is None:  # else the other runs go on
            clean_up()
    folder.failure.unlink(missing_ok=True)
    print(f"{name}: done", flush=True)
    return metrics


def _last_checkpoint(folder: RunFolder) -> str | None:
    return str(folder.last) if folder.last.exists() else None


def _record_failure(folder: RunFolder, error: Exception) -> None:
    if explain(error) is None and not isinstance(error, ChildProcessError):
        traceback.print_exception(error)  # a bug of ours, or of a library
    write_failure(folder, error)
    print(f"{folder.path.name}: failed: {failure_line(error)}", file=sys.stderr, flush=True)


def _num_tasks() -> int:
    return int(os.environ.get("SLURM_NTASKS", 1))


def _fits_this_process(config: DictConfig) -> bool:
    trainer = config.trainer
    single = str(trainer.devices) == "1" and trainer.num_nodes == 1 and trainer.strategy == "auto"
    return single or _num_tasks() > 1


def _train_in_own_process(
    config: DictConfig, folder: RunFolder, lock: int
) -> dict[str, float] | None:
    """Run a job with several processes as a command of its own.

    Lightning starts further processes by repeating the command line, which in a sweep is the
    whole sweep; it changes the environment; and when one process dies it kills the others,
    including the sweep's. A command of this job alone avoids all three.

    Raises:
        ChildProcessError: if it fails, with its error line.
    """
    given = HydraConfig.get().overrides
    overrides = list(given.task)
    overrides += [text for text in given.hydra if "searchpath" in text]
    if config.ckpt_path:
        overrides.append(f"ckpt_path={quoted(config.ckpt_path)}")
    output = f"hydra.run.dir={quoted(folder.path)}"
    fixed = [output, "hydra.output_subdir=null", "hydra.mode=RUN"]
    environment = {key: value for key, value in os.environ.items() if key != DEBUG}
    environment["PYTHONSAFEPATH"] = "1"  # modules of the current folder shadow none of ours
    with subprocess.Popen(
        [*COMMAND, *overrides, *fixed],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[lock],
    ) as process:
        try:
            reason = _copy_errors(process.stderr or ())
        except BaseException:  # we are asked to end: let it save its checkpoint first
            process.terminate()
            process.communicate()
            raise
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise ChildProcessError(
            f"the run's process was ended by {name}; its last line: {reason or 'none'}"
        )
    if process.returncode:
        raise ChildProcessError(reason or f"the run's process ended with code {process.returncode}")
    return folder.read_record().get("test")


def _copy_errors(lines: Iterable[str]) -> str:
    """Print what a run writes to standard error, without the error line of each of its processes.

    Returns:
        The first of these, else the last line; empty if there is none.
    """
    error = last = ""
    for line in lines:
        if line.startswith(ERROR):
            error = error or line.removeprefix(ERROR).strip()
        else:
            sys.stderr.write(line)
            last = line.strip() or last
    return error or last


def clean_up() -> None:
    """Free memory and reset global state for the next job of this process."""
    gc.collect()
    torch.use_deterministic_algorithms(False)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
