"""Text from data without control characters and secrets."""

import pytest

from twotower.wording import clip, duration, masked, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë & Ömer 東京 [rec]", "Zoë & Ömer 東京 [rec]"),
        ("red \x1b[31malert\x1b[0m", "red [31malert[0m"),  # no escape character, no colour
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("bell\x07 null\x00", "bell null"),
        ("abc\u202edcba", "abcdcba"),  # right-to-left override
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner that Persian needs
        ("c1 \x9b31m", "c1 31m"),  # the one-byte form of an escape sequence
    ],
)
def test_control_characters_are_dropped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("data.reader.url=https://me:hunter2@host/a.zip", "data.reader.url=https://***@host/a.zip"),
        ("url: 'https://me:hun/ter2@host/a.zip'", "url: 'https://***@host/a.zip'"),
        ("url: https://host/a.zip?X-Amz-Signature=hunter2&n=1", "url: https://host/a.zip?***"),
        ("+logger.api_key=hunter2", "+logger.api_key=***"),
        ("+logger.api_key='hunter 2',seed=1", "+logger.api_key=***,seed=1"),
        ("a:\n  password: hunter2\n  seed: 1\n", "a:\n  password: ***\n  seed: 1\n"),
        ("api_key: ${oc.env:WANDB_API_KEY}", "api_key: ${oc.env:WANDB_API_KEY}"),
        ("token: null\nmonitor: val/ndcg@10", "token: null\nmonitor: val/ndcg@10"),
        ("url: https://host/a.zip", "url: https://host/a.zip"),
    ],
)
def test_secrets_are_not_kept(text, shown):
    assert masked(text) == shown and masked(shown) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (12, "12 s"),
        (89, "89 s"),
        (90, "2 min"),
        (600, "10 min"),
        (5400, "1.5 h"),
        (200_000, "2 days"),
    ],
)
def test_durations_have_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_clipped_text_is_one_line() -> None:
    assert clip("x\ny \x1b[31m", 10) == "x y [31m"
    assert clip("a" * 12, 10) == "a" * 9 + "…"
