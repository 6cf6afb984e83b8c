"""Text from data and files, made safe to print."""

import unicodedata

UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format (bidirectional too), surrogates, line separators
JOINERS = "\u200c\u200d"  # needed to write Persian, Indic scripts and some emoji


def printable(text: str) -> str:
    """Drop what a terminal or a page would obey instead of show: escape sequences, line ends, text direction.

    A tab or line end becomes a blank, so that words stay apart.
    """
    spaced = "".join(" " if character in "\t\n\r\v\f" else character for character in text)
    return "".join(c for c in spaced if c in JOINERS or unicodedata.category(c) not in UNSAFE)
