"""The path of a checkpoint, looked at before anything is made or imported for it."""

import os
import stat
from pathlib import Path

from twotower.errors import UserError
from twotower.wording import printable

ZIP = b"PK\x03\x04"  # what torch.save writes begins with this


def checkpoint_file(path: object) -> Path:
    """The path, if an ordinary file is there that may be a checkpoint.

    A device or a named pipe would be read for ever, so the kind of file is asked for first.

    Raises:
        UserError: for what is no path, no file, or begins otherwise than a checkpoint.
    """
    shown = f"ckpt_path={printable(str(path))}"
    if not isinstance(path, (str, Path)) or not str(path):
        raise UserError(
            f"{shown} is no path: give <run folder>/checkpoints/last.ckpt or best.ckpt, or "
            "leave it out (a name that is a number goes into quotes, ckpt_path='\"7\"')"
        )
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{shown} is a folder: {_inside(path)}")
        if not stat.S_ISREG(mode):
            raise UserError(f"{shown} is no ordinary file: give the path of a checkpoint")
        with path.open("rb") as file:
            start = file.read(len(ZIP))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{shown}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror}") from None
    if start != ZIP:
        raise UserError(
            f"{shown} cannot be read as a checkpoint: it is another kind of file, or damaged"
        )
    return path


def _inside(folder: Path) -> str:
    found = [folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    found = [path for path in found if os.path.lexists(path)]
    return f"give {' or '.join(map(str, found))}" if found else "give a checkpoint in it"
