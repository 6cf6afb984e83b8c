"""The logger that writes a run's ``metrics.csv``."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from twotower.errors import UserError
from twotower.files import whole_file

Row = dict[str, Any]


class RunCSVLogger(Logger):
    """Writes ``<run folder>/metrics.csv``: a row for each call, a column for each name.

    A new run replaces the file. A resumed run continues after the rows that its checkpoint counted
    (:meth:`resume`), so that the file ends like that of an uninterrupted run.

    Args:
        save_dir: the run folder.

    Attributes:
        num_rows: logged so far.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._path = Path(save_dir) / "metrics.csv"
        self.num_rows = 0
        self._kept: list[Row] = []  # rows of a resumed run, until the file is written
        self._columns: list[str] = []  # of the file; none before it is written

    @property
    def name(self) -> str:
        """Empty: a run folder has one such file."""
        return ""

    @property
    def version(self) -> str:
        """Empty: a run folder has one such file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._path.parent)

    @rank_zero_only
    def resume(self, num_rows: int | None) -> None:
        """Go on after the first ``num_rows`` rows of the file; None: after all.

        Raises:
            UserError: if the file is damaged.
        """
        self._kept = _read(self._path)[:num_rows]
        self.num_rows = len(self._kept)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row; it is in the file when this returns."""
        row = {name: _number(value) for name, value in metrics.items()}
        row["step"] = self.num_rows if step is None else step
        self.num_rows += 1
        if row.keys() <= set(self._columns):
            with self._path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
            return
        rows = [*(_read(self._path) if self._columns else self._kept), row]
        self._columns = sorted(set().union(*rows))  # the order does not depend on the first row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self._path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        self._kept = []

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run folder has its config."""

    @rank_zero_only
    def sync(self) -> None:
        """Write the rows to the disk now; after a crash of this process they are there anyway."""
        if self._columns:
            with self._path.open("a") as file:
                os.fsync(file.fileno())


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _read(path: Path) -> list[Row]:
    """The rows of a file without empty cells, and without a last line that was cut off.

    Raises:
        UserError: if it is damaged.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text("utf-8").splitlines(keepends=True)
        rows = list(csv.DictReader(line for line in lines if line.endswith("\n")))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}): move it away") from error
    return [{name: cell for name, cell in row.items() if cell} for row in rows]
