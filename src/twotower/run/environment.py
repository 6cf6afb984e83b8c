"""Documented variables from a ``.env`` file."""

import os
from pathlib import Path

from dotenv import dotenv_values

from twotower.errors import UserError
from twotower.run.conf import CONF
from twotower.wording import printable, warn

# beside conf/, or in the current folder if conf/ is inside of an installed package
PACKAGE = Path(__file__).resolve().parents[1]
FILE = Path(".env") if CONF.parent == PACKAGE else CONF.with_name(".env")
KEYS = (  # .env.example has the same; others, such as PYTHONPATH, could make processes run anything
    "TWOTOWER_DATA_DIR",
    "TWOTOWER_CACHE_DIR",
    "TWOTOWER_OUTPUT_DIR",
    "TWOTOWER_TRUSTED",
    "WANDB_API_KEY",
    "WANDB_PROJECT",
    "WANDB_ENTITY",
    "WANDB_MODE",
)


def read_env_file() -> None:
    """Set the documented variables that ``.env`` has and the environment has not.

    Values are not interpolated, and other keys are ignored with a line on standard error.

    Raises:
        UserError: if the file cannot be read as text.
    """
    if not FILE.is_file():
        return
    try:
        found = dotenv_values(FILE, interpolate=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{FILE} cannot be read: {error}") from None
    for key, value in found.items():
        if key in KEYS and value is not None and "\0" not in value:
            os.environ.setdefault(key, value)
    ignored = [printable(key) for key in found if key not in KEYS]
    if ignored and "LOCAL_RANK" not in os.environ:  # only the first process prints
        names = ", ".join(ignored)
        warn(f"{FILE}: {names} ignored, as .env may set only {', '.join(KEYS)}")
