"""The path of a checkpoint, and one-line errors that name it. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twotower.errors import UserError
from twotower.wording import one_line, printable

MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


def checkpoint_file(path: object, resumes: bool = False) -> Path:
    """The path of a checkpoint; of a run folder, its ``best.ckpt``, or the only one there is.

    Args:
        path: of a file or of a run folder.
        resumes: take the ``last.ckpt`` of a run folder first.

    Raises:
        UserError: if it is not a path, or there is no such file.
    """
    shown = f"ckpt_path={printable(str(path))}"
    if not isinstance(path, (str, Path)) or not str(path):
        raise UserError(
            f"{shown} is not a path: give a run folder or a checkpoint, or leave it out (a name "
            "that is a number goes into quotes, ckpt_path='\"7\"')"
        )
    path = Path(path)
    names = ("last", "best") if resumes else ("best", "last")
    try:
        for file in (path, *(path / "checkpoints" / f"{name}.ckpt" for name in names)):
            if file.is_file():
                return file
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        is_folder = exists = False
    if is_folder:
        raise UserError(f"{shown} is a folder without checkpoints/best.ckpt and last.ckpt")
    reason = " is not an ordinary file" if exists else ": there is no such file"
    raise UserError(f"{shown}{reason}: give a run folder, or its checkpoints/best.ckpt")


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Turn errors inside into a line that names the checkpoint; with None they stay as they are.

    Raises:
        UserError: for errors that a damaged or changed checkpoint can cause.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        if path is None or str(path) in text:
            raise
        raise type(error)(printable(f"ckpt_path={path}: {text}")) from error
    except (MemoryError, *MISFITS) as error:
        # torch raises a RuntimeError where memory is short; explain() in cli.py has a line for it
        if path is None or isinstance(error, MemoryError) or "memory" in str(error):
            raise
        reason = printable(one_line(error))
        raise UserError(
            f"ckpt_path={path} is damaged or does not fit this run: "
            f"{type(error).__name__}: {reason}"
        ) from error
