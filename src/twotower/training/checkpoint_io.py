"""Writes checkpoints so that the file of a name is always a whole one."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from twotower.errors import UserError
from twotower.files import PARTIAL, whole_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs to the disk and renames.

    Lightning writes into the folder for temporary files and copies from there where that folder is
    on another file system. A process that is killed while it copies leaves half a checkpoint in the
    place of the one before.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``; until that is done, ``path`` stays as it was.

        Raises:
            UserError: if it cannot be written, say because the disk is full.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as partial:
                _write(checkpoint, partial)
        except OSError as error:
            before = "; the one before is untouched" if target.exists() else ""
            raise UserError(
                f"cannot write the checkpoint {target}: {error.strerror or error}{before}"
            ) from error


def remove_partial_checkpoints(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote a checkpoint into ``folder``."""
    for path in folder.glob(f".*.ckpt{PARTIAL}"):
        path.unlink(missing_ok=True)


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write with Python's own errors: torch hides a full disk behind an internal one of its writer.

    Raises:
        OSError: if the disk is full, say.
    """
    failures: list[OSError] = []

    class Remembering:
        """A file that keeps the error of its last write."""

        def write(self, data: Any) -> int:
            try:
                return file.write(data)
            except OSError as error:
                failures.append(error)
                raise

        def flush(self) -> None:
            file.flush()

    with path.open("wb") as file:
        try:
            torch.save(checkpoint, Remembering())  # type: ignore[arg-type]
        except Exception:
            if failures:
                raise failures[0] from None
            raise
