"""Text from data reaches the terminal as text."""

import pytest

from twotower.wording import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë & Ömer 東京 [rec]", "Zoë & Ömer 東京 [rec]"),
        ("red \x1b[31malert\x1b[0m", "red [31malert[0m"),  # the escape character is gone, so nothing is obeyed
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("bell\x07 null\x00", "bell null"),
        ("abc\u202edcba", "abcdcba"),  # right-to-left override
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner that Persian needs
        ("c1 \x9b31m", "c1 31m"),  # the one-byte form of an escape sequence
    ],
)
def test_control_characters_are_dropped(text: str, shown: str) -> None:
    assert printable(text) == shown
