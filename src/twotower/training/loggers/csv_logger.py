"""Loggers that Lightning lacks."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from twotower.errors import UserError
from twotower.files import read_bytes, write_text

Row = dict[str, Any]
MAX_BYTES = 1 << 30  # of a table of metrics


class RunCSVLogger(Logger):
    """Writes ``<run folder>/metrics.csv``: a row for each call, a column for each name.

    A new run starts the file anew. A resumed one goes on after the rows that there were when its
    checkpoint was written (:meth:`resume`), so that the file ends as an undisturbed run's.

    Args:
        save_dir: the run folder.

    Attributes:
        num_rows: logged so far.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._path = Path(save_dir) / "metrics.csv"
        self.num_rows = 0
        self._kept: list[Row] = []  # rows of the run so far, until the file is begun
        self._columns: list[str] | None = None  # of the file; None: it is not begun

    @property
    def name(self) -> str:
        """None: a run folder has one."""
        return ""

    @property
    def version(self) -> str:
        """None: a run folder has one."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._path.parent)

    @rank_zero_only
    def resume(self, num_rows: int | None) -> None:
        """Go on after the first ``num_rows`` rows of the file; None: after all."""
        self._kept = _read(self._path)[:num_rows]
        self.num_rows = len(self._kept)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row; it is in the file when this returns."""
        row = {name: _number(value) for name, value in metrics.items()}
        row["step"] = self.num_rows if step is None else step
        self.num_rows += 1
        if self._columns is not None and row.keys() <= set(self._columns):
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(_text([row], self._columns, header=False))
            return
        rows = [*(self._kept if self._columns is None else _read(self._path)), row]
        self._columns = sorted(set().union(*rows))  # the same whenever a column came first
        write_text(self._path, _text(rows, self._columns, header=True))
        self._kept = []

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder has its config."""

    @rank_zero_only
    def save(self) -> None:
        """Ask the system to write the rows to the disk now."""
        if self._columns is not None:
            with self._path.open("a") as file:
                os.fsync(file.fileno())


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _read(path: Path) -> list[Row]:
    """The rows of a file, without empty cells. A last line that was being written is left out.

    Raises:
        UserError: for what is no table, and no ordinary file.
    """
    if not path.exists():
        return []
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.DictReader(io.StringIO(whole, newline="")))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}): move it away") from error
    # a row that is too long has its rest under None, one that is too short has None in its end
    return [{name: cell for name, cell in row.items() if name is not None and cell} for row in rows]


def _text(rows: list[Row], columns: list[str], header: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
