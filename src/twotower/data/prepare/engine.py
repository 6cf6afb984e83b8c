"""Which engine prepares: Polars in memory, or DuckDB on the disk."""

import importlib.util
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from twotower.data.own_files.paths import COMPRESSED, SEPARATORS
from twotower.errors import UserError, check_choice, check_number

ENGINES = ("auto", "polars", "duckdb")
INSTALL = "pip install 'twotower[duckdb]'"
GB = 10**9
# of a container, by version 2 and 1 of Linux's control groups
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
MOST_GB = 4.0  # what DuckDB gets where nothing is said: more does not make it faster
# memory that Polars needs for a byte of a file: measured with three columns of numbers
PLAIN_TEXT, PACKED = 3, 8


class Choice(NamedTuple):
    """Which engine prepares.

    Attributes:
        name: of ``ENGINES``.
        memory_gb: that DuckDB may use before it writes to the disk; None: 4, or half of the memory
            of a smaller machine.
        folder: of its temporary files; None: where the prepared data go.
    """

    name: str = "auto"
    memory_gb: float | None = None
    folder: str | None = None

    def check(self) -> None:
        """Refuse values out of range, and DuckDB where it is not installed."""
        check_choice("data.engine", self.name, ENGINES)
        if self.memory_gb is not None:
            check_number("data.engine_memory_gb", self.memory_gb, 0.1, 100_000)
        if self.name == "duckdb" and not _is_installed():
            raise UserError(f"data.engine=duckdb needs DuckDB: {INSTALL}")

    def made(self, sources: Iterable[Path]) -> tuple[str, str]:
        """The engine for these files, and a line about it where it was chosen by their size."""
        if self.name != "auto":
            return self.name, ""
        need, memory = sum(_memory_for(path) for path in sources if path.exists()), memory_bytes()
        if 2 * need < memory:
            return "polars", ""
        about = f"preparation in memory would take some {need / GB:.0f} of {memory / GB:.0f} GB"
        if _is_installed():
            return "duckdb", f"{about}: DuckDB prepares on the disk (data.engine=polars changes it)"
        return "polars", f"{about}: {INSTALL} for preparation on the disk"

    def limit_gb(self) -> float:
        """Memory of DuckDB."""
        return self.memory_gb or min(MOST_GB, memory_bytes() / GB / 2)


AUTO = Choice()


def remove_workplace(folder: Path) -> None:
    """Remove the temporary files of a preparation, if there are any."""
    shutil.rmtree(folder, ignore_errors=True)


def memory_bytes() -> int:
    """Memory of the machine, or of the container."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            found = min(found, int(path.read_text()))
    return found


def _memory_for(path: Path) -> int:
    if path.suffix == ".npy":  # vectors are mapped
        return 0
    is_text = path.suffix in SEPARATORS and path.suffix not in COMPRESSED
    return path.stat().st_size * (PLAIN_TEXT if is_text else PACKED)


def _is_installed() -> bool:
    return importlib.util.find_spec("duckdb") is not None
