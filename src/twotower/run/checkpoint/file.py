"""The path of a checkpoint, and one-line errors that name it. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twotower.errors import UserError
from twotower.wording import one_line, printable

MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


def checkpoint_file(path: object) -> Path:
    """The path, if there is an ordinary file.

    Raises:
        UserError: if it is not a path, or there is no such file.
    """
    shown = f"ckpt_path={printable(str(path))}"
    if not isinstance(path, (str, Path)) or not str(path):
        raise UserError(
            f"{shown} is not a path: give <run folder>/checkpoints/last.ckpt or best.ckpt, or "
            "leave it out (a name that is a number goes into quotes, ckpt_path='\"7\"')"
        )
    path = Path(path)
    best = path / "checkpoints" / "best.ckpt"
    try:
        is_file, exists, has_best = path.is_file(), path.exists(), best.exists()
    except (OSError, ValueError):  # a name that is too long, or with a zero byte
        is_file = exists = has_best = False
    if is_file:
        return path
    if has_best:
        raise UserError(f"{shown} is a folder: give {best}, or last.ckpt beside it")
    reason = " is not an ordinary file" if exists else ": there is no such file"
    raise UserError(f"{shown}{reason}: give <run folder>/checkpoints/best.ckpt or last.ckpt")


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
