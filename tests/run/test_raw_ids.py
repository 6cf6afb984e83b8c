"""Ids on the command line reach the command as the text that was typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from twotower.run.raw_ids import quote_ids

IDS = [
    "42",
    "6777_314",
    "1e5",
    "0x10",
    "007",
    "1.0",
    "-5",
    "true",
    "null",
    "nan",
    "a b",
    "f(x)",
    "k=v",
    "${oc.env:HOME}",
]
IDS += ["$5", "{a}", "it's", 'say "hi"', "a\\b", "a\\", "[x", "a: b", "é", "@x #1 %41", "line\nend"]


def read(argument):
    """What Hydra makes of an argument."""
    override = OverridesParser.create().parse_override(quote_ids([argument])[0])
    return OmegaConf.to_container(OmegaConf.create({"value": override.value()}), resolve=True)[
        "value"
    ]


@pytest.mark.parametrize("text", IDS)
def test_an_id_is_its_text(text):
    assert read(f"user_id={text}") == text == read(f"item_id={text}") == read(f"++user_id={text}")
    assert read(f"history=[{text}, 1_0,{text} ]") == [text, "1_0", text]


def test_commas_separate_and_quotes_hold_together():
    assert read("user_id=a,b") == "a,b" and read('user_id="') == '"'
    assert read("history=[]") == [] and read("history=[1,2,]") == ["1", "2"]
    assert read("""history=["a,b", 'c]', d]""") == ["a,b", "c]", "d"]
    assert read('user_id="${x}"') == "${x}" and read("history=['${x}',b]") == ["${x}", "b"]
    assert (
        read("""user_id='"6777_314"'""") == '"6777_314"'
        and read('user_id="6777_314"') == "6777_314"
    )


def test_other_arguments_are_as_they_were():
    for argument in (
        "k=10",
        "-m",
        "seen=true",
        "user_id=[1,2]",
        "history=3",
        "history=null",
        "ckpt_path=a b",
    ):
        assert quote_ids([argument]) == [argument]


def test_conditions_are_texts():
    assert read("where=category=books, new") == "category=books, new"
    assert read("where=[price<=20.5,'tag=a,b', year>1990]") == [
        "price<=20.5",
        "tag=a,b",
        "year>1990",
    ]
