"""Loggers that Lightning lacks."""

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only


class RunCSVLogger(CSVLogger):
    """Writes ``<run folder>/metrics.csv`` and, when a run is resumed, keeps the rows it had.

    Lightning's own deletes them. Rows from the first step logged now on are dropped, as they come again.

    Args:
        save_dir: the run folder.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=1)
        path = Path(save_dir) / "metrics.csv"
        self._earlier: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                self._earlier = list(csv.DictReader(file))

    @property
    def log_dir(self) -> str:
        """The run folder itself, without a version folder."""
        return str(self._save_dir)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row."""
        if self._earlier and step is not None:
            kept = [row for row in self._earlier if int(row["step"]) < step]
            self._earlier = []
            self.experiment.metrics.extend({key: value for key, value in row.items() if value != ""} for row in kept)
        super().log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Flush the rows."""
        self.experiment.save()
