"""What a run can do without: if it fails, that is one warning and never the end of the run."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from twotower.terminal import PlainConsole
from twotower.wording import printable

FULL_ERROR = "HYDRA_FULL_ERROR"


@contextmanager
def extra(what: str) -> Iterator[None]:
    """Turn any error inside into a warning on standard error; ``HYDRA_FULL_ERROR=1`` shows its traceback too.

    Args:
        what: is missing after an error, such as ``the plots of the diagnostics``.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get(FULL_ERROR) == "1":
            traceback.print_exc()
        reason = printable(str(error)).strip()[:300]
        line = f" {what} left out: {type(error).__name__}{f': {reason}' if reason else ''}"
        console = PlainConsole(stderr=True, soft_wrap=True)
        console.print(Text.assemble(("warning:", "bold yellow"), line))
