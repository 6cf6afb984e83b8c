"""Text from data without control characters and secrets."""

import pytest

from twotower.wording import masked, printable


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
