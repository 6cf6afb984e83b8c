"""Writes checkpoints so that a file under its final name is always complete."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map

from twotower.errors import UserError
from twotower.files import PARTIAL, whole_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs to the disk and renames.

    Lightning writes to the folder for temporary files and copies from there if that folder is on
    another file system: a process that is killed while it copies leaves half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``, which stays as it was until the new file is complete.

        Raises:
            UserError: if it cannot be written, for example because the disk is full.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as partial, partial.open("wb") as file:
                torch.save(tree_map(_without_others, checkpoint), file)
        except (OSError, RuntimeError) as error:  # torch's own on a full disk
            reason = getattr(error, "strerror", None) or "the disk may be full"
            before = "; the one before is untouched" if target.exists() else ""
            raise UserError(f"cannot write the checkpoint {target}: {reason}{before}") from error


def _without_others(value: Any) -> Any:
    """A copy of a tensor that is a view of a larger one, which would be written whole."""
    is_part = isinstance(value, Tensor) and value.untyped_storage().nbytes() > value.nbytes
    return value.clone() if is_part else value


def remove_partial_checkpoints(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote a checkpoint into ``folder``."""
    for path in folder.glob(f".*.ckpt{PARTIAL}"):
        path.unlink(missing_ok=True)
