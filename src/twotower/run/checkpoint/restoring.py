"""What Lightning restores when a run is resumed: from the file that it is told, each part checked against what it is for."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector
from torch import Tensor

from twotower.errors import UserError
from twotower.run.checkpoint.checkpoints import is_dense, load_checkpoint
from twotower.run.checkpoint.restoring_optimizer import optimizer_state, scheduler_state
from twotower.run.checkpoint.state_kinds import taken
from twotower.wording import printable

PARTS = ("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks")
OPTIMIZER = ("optimizer_states", "lr_schedulers")
OWN_FILE = re.compile(r"[\w@=.+-]+\.ckpt")
MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


class CheckedConnector(_CheckpointConnector):
    """Loads the checkpoint that it is told, and none that it finds by itself.

    Lightning's own takes words for paths (``best``, ``last``, ``hpc``) and, below SLURM, any
    ``hpc_ckpt_*.ckpt`` of the working folder.
    """

    def _select_ckpt_path(
        self, state_fn: Any, ckpt_path: Any, model_provided: bool, model_connected: bool
    ) -> Any:
        return ckpt_path

    def resume_start(self, checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        """Read the file and check it.

        Raises:
            UserError: naming the file and what is wrong with it.
        """
        self._ckpt_path = checkpoint_path
        if checkpoint_path:
            checkpoint = load_checkpoint(checkpoint_path, mmap=False, rebuilds=False)
            with naming(checkpoint["path"]):
                self._loaded_checkpoint = fitting(checkpoint, self.trainer)

    def dump_checkpoint(self, weights_only: bool | None = None) -> dict[str, Any]:
        """The state of a run; unasked, Lightning prints a line about ``weights_only`` for each file."""
        state: dict[str, Any] = super().dump_checkpoint(bool(weights_only))
        return state

    def restore_callbacks(self) -> None:
        """Give callbacks their state."""
        with self._naming():
            super().restore_callbacks()

    def restore_model(self) -> None:
        """Give the model its weights."""
        with self._naming():
            super().restore_model()

    def restore_lr_schedulers(self) -> None:
        """Give the scheduler its state, which is made with the optimizer and so checked late."""
        own = [config.scheduler.state_dict() for config in self.trainer.lr_scheduler_configs]
        found = self._loaded_checkpoint["lr_schedulers"]
        if len(found) != len(own):
            raise UserError(f"has {len(found)} lr_schedulers, where the run has {len(own)}")
        pairs = zip(found, own, strict=True)
        self._loaded_checkpoint["lr_schedulers"] = [scheduler_state(*pair) for pair in pairs]
        super().restore_lr_schedulers()

    def restore_training_state(self) -> None:
        """Give loops and optimizer their state."""
        with self._naming():
            super().restore_training_state()

    def _naming(self) -> Any:
        return naming(self._ckpt_path)


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Errors from inside name the checkpoint; with None they stay as they are.

    Raises:
        UserError: for those that a checkpoint can cause which does not fit.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        raise UserError(
            text if path is None or str(path) in text else printable(f"ckpt_path={path}: {text}")
        ) from error
    except (MemoryError, *MISFITS) as error:
        if path is None:
            raise
        if isinstance(error, MemoryError) or "memory" in str(error):  # torch raises a RuntimeError
            raise UserError(f"ckpt_path={path} needs more memory than there is") from error
        reason = printable(" ".join(str(error).split()))
        raise UserError(
            f"ckpt_path={path} does not fit this run: {type(error).__name__}: {reason}"
        ) from error


def fitting(checkpoint: dict[str, Any], trainer: pl.Trainer) -> dict[str, Any]:
    """The parts of a checkpoint that a trainer restores, and no other.

    Raises:
        UserError: for a part that is missing or does not fit the trainer's own.
    """
    if missing := [part for part in (*PARTS, *OPTIMIZER) if part not in checkpoint]:
        raise UserError(
            f"has no {missing[0]}: only last.ckpt and best.ckpt of a run can be resumed"
        )
    found = {part: checkpoint[part] for part in (*PARTS, *OPTIMIZER, "twotower")}
    for part in ("epoch", "global_step"):
        taken(found[part], 0, part)
    found["loops"] = {"fit_loop": _loop(found["loops"], trainer.fit_loop.state_dict())}
    found["callbacks"] = _callbacks(found["callbacks"], trainer)
    task: Any = trainer.lightning_module
    found["optimizer_states"] = [
        optimizer_state(found["optimizer_states"], task._optimizer, task.optimizer)
    ]
    if not isinstance(found["lr_schedulers"], list):
        raise UserError("has no list of lr_schedulers")
    name = type(trainer.precision_plugin).__qualname__  # the gradient scaler of 16-mixed
    if name in checkpoint:
        found[name] = taken(checkpoint[name], trainer.precision_plugin.state_dict(), name)
    return found


def _loop(loops: Any, own: dict[str, Any]) -> dict[str, Any]:
    state = loops.get("fit_loop") if isinstance(loops, dict) else None
    if not isinstance(state, dict):
        raise UserError("has no state of the training loop")
    loaders = state.get("state_dict")
    loaders = loaders.get("combined_loader", []) if isinstance(loaders, dict) else None
    if not isinstance(loaders, list):
        raise UserError("has no state of the loader")
    where = "loops.fit_loop"
    loaders = [
        taken(one, {"epoch": 0, "next_batch": 0}, f"{where}.state_dict.combined_loader")
        for one in loaders
    ]
    own = {key: value for key, value in own.items() if key != "state_dict" and value}
    return {**taken(state, own, where), "state_dict": {"combined_loader": loaders}}


def _callbacks(states: Any, trainer: pl.Trainer) -> dict[str, Any]:
    """The states of the callbacks that there are."""
    if not isinstance(states, dict):
        raise UserError("has no states of callbacks")
    found = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        key = callback.state_key
        if key in states:
            found[key] = _callback_state(
                callback, states[key], f"the state of {type(callback).__name__}"
            )
    return found


def _callback_state(callback: Callback, state: Any, where: str) -> Any:
    if isinstance(callback, ModelCheckpoint):
        return _best_files(callback, state, where)
    own = callback.state_dict()
    if isinstance(state, dict):  # earlier versions kept fewer lists of what has been seen
        state = {**{key: [] for key, value in own.items() if isinstance(value, list)}, **state}
    state = taken(state, own, where)
    for key, value in own.items():
        if isinstance(value, list):
            _check_rows(state[key], f"{where}.{key}")
    if isinstance(callback, EarlyStopping):
        state["patience"] = callback.patience  # the settings are the config's
    return state


def _check_rows(rows: list[Any], where: str) -> None:
    for row in rows:
        if not isinstance(row, dict) or not all(
            isinstance(name, str) and (type(value) in (int, float) or _is_index(value))
            for name, value in row.items()
        ):
            raise UserError(f"{where} holds what is no row of numbers")


def _is_index(value: Any) -> bool:
    """Whole numbers, as the diagnostics keep of the last steps."""
    return is_dense(value) and value.dtype == torch.long and value.dim() == 1


def _best_files(callback: ModelCheckpoint, state: Any, where: str) -> dict[str, Any]:
    """The state with its files in this run's folder, wherever they were: Lightning deletes what it names.

    Raises:
        UserError: for what is not consistent.
    """
    taken(state, {"best_k_models": {}, "best_model_path": "", "kth_best_model_path": ""}, where)

    def own(path: Any) -> str:
        name = Path(path).name if isinstance(path, str) else ""
        if path and (not OWN_FILE.fullmatch(name) or name == "last.ckpt"):
            raise UserError(f"{where} names the file {path!r}, which is none of its own")
        return str(Path(str(callback.dirpath)) / name) if path else ""

    def score(value: Any) -> Tensor | None:
        if value is None:
            return None
        if (
            not is_dense(value)
            or value.numel() != 1
            or not value.is_floating_point()
            or bool(value.isnan())
        ):
            raise UserError(f"{where} holds a score that is no number")
        return value.reshape(())

    best = {own(path): score(value) for path, value in state["best_k_models"].items()}
    named = {key: own(state[key]) for key in ("best_model_path", "kth_best_model_path")}
    unknown = [path for path in named.values() if path and path not in best]
    if None in best.values() or unknown or (best and not named["best_model_path"]):
        raise UserError(f"{where} names files that it has no score of")
    if callback.save_top_k >= 0 and len(best) > callback.save_top_k:
        raise UserError(
            f"{where} has {len(best)} files, callbacks.*.save_top_k={callback.save_top_k}"
        )
    scores = {key: score(state.get(key)) for key in ("best_model_score", "current_score")}
    kth_path = named["kth_best_model_path"]  # none while there are fewer than save_top_k files
    kth = best[kth_path] if kth_path else callback.kth_value
    if best and scores["best_model_score"] is None:
        raise UserError(f"{where} has no best_model_score")
    return {
        **scores,
        **named,
        "monitor": callback.monitor,
        "dirpath": callback.dirpath,
        "best_k_models": best,
        "kth_value": kth,
        "last_model_path": "",
    }
