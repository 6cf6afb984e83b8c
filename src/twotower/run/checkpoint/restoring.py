"""Lightning's restoring of a run, with one-line errors for checkpoints that do not fit it."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector

from twotower.errors import UserError
from twotower.run.checkpoint.checkpoints import read_checkpoint
from twotower.run.checkpoint.file import naming

PARTS = ("epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")


class CheckedConnector(_CheckpointConnector):
    """Loads the checkpoint at the path that it is given, and no other.

    Lightning's own takes words for paths (``best``, ``last``, ``hpc``) and, below SLURM, any
    ``hpc_ckpt_*.ckpt`` of the working folder.
    """

    def _select_ckpt_path(
        self, state_fn: Any, ckpt_path: Any, model_provided: bool, model_connected: bool
    ) -> Any:
        return ckpt_path

    def resume_start(self, checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        """Read the file and check its parts.

        Raises:
            UserError: naming the file and what is wrong with it.
        """
        self._ckpt_path = checkpoint_path
        if not checkpoint_path:
            return
        checkpoint = read_checkpoint(checkpoint_path, mmap=False)
        with self._naming():
            self._check(checkpoint)
        self._loaded_checkpoint = checkpoint

    def dump_checkpoint(self, weights_only: bool | None = None) -> dict[str, Any]:
        """The state of a run; with None, Lightning prints a line for each file."""
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

    def restore_training_state(self) -> None:
        """Give loops, optimizer and scheduler their state."""
        with self._naming():
            super().restore_training_state()

    def _naming(self) -> AbstractContextManager[None]:
        return naming(self._ckpt_path)

    def _check(self, checkpoint: dict[str, Any]) -> None:
        """Compare the kinds of values with those of the run, before anything is restored."""
        if missing := [part for part in PARTS if part not in checkpoint]:
            raise UserError(
                f"has no {missing[0]}: only last.ckpt and best.ckpt of a run can be resumed"
            )
        check_kinds(checkpoint["loops"]["fit_loop"], self.trainer.fit_loop.state_dict(), "loops")
        states = checkpoint["callbacks"]
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            key = callback.state_key
            if key not in states:
                continue
            check_kinds(states[key], callback.state_dict(), f"callbacks.{key}")
            if isinstance(callback, ModelCheckpoint):
                states[key] = with_own_files(states[key], str(callback.dirpath))


def check_kinds(found: Any, own: Any, where: str) -> None:
    """Compare a part of a checkpoint with the run's own state, whose values are examples.

    Raises:
        UserError: for a value that is missing or of another kind.
    """
    if isinstance(own, dict) and isinstance(found, dict):
        for key, value in own.items():
            if key not in found:
                raise UserError(f"{where} has no {key}")
            check_kinds(found[key], value, f"{where}.{key}")
    kind = (int, float) if isinstance(own, float) else type(own)
    if own is not None and not isinstance(found, kind):
        raise UserError(f"{where} is a {type(found).__name__}, not a {type(own).__name__}")


def with_own_files(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """The state of a ``ModelCheckpoint`` with its files in this run's folder.

    The folder may have been moved, and Lightning deletes the files that the state names.

    Raises:
        UserError: for a file that is not a checkpoint.
    """

    def own(path: str) -> str:
        if path and Path(path).suffix != ".ckpt":
            raise UserError(f"the state of the best checkpoints names {path!r}, no checkpoint")
        return str(Path(folder) / Path(path).name) if path else ""

    return {
        **state,
        "dirpath": folder,
        "best_k_models": {own(path): score for path, score in state["best_k_models"].items()},
        "best_model_path": own(state["best_model_path"]),
        "kth_best_model_path": own(state["kth_best_model_path"]),
        "last_model_path": "",
    }
