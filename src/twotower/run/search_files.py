"""The files of a search, which its confirmation and the report read: trials.csv, search.yaml."""

import csv
import io
from pathlib import Path
from typing import Any

import yaml

from twotower.files import read_bytes

TRIALS, ABOUT = "trials.csv", "search.yaml"
ENDED = ("complete", "pruned", "failed")  # states of trials that are not under way
MAX_BYTES = 16 << 20


def read(folder: Path) -> tuple[Any, list[dict[str, str]]]:
    """What was searched, as plain values, and a row for each trial.

    Raises:
        OSError: if a file is missing.
        ValueError: if one is too large or no text.
        yaml.YAMLError: if ``search.yaml`` is damaged.
        csv.Error: if ``trials.csv`` is.
    """
    plain = yaml.safe_load(read_bytes(folder / ABOUT, MAX_BYTES))
    text = read_bytes(folder / TRIALS, MAX_BYTES).decode()
    return plain, list(csv.DictReader(io.StringIO(text)))
