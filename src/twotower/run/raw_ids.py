"""Quotes for ids on the command line: Hydra reads ``6777_314``, ``1e5`` and ``true`` as no text."""

import re

from hydra.core.override_parser.types import Quote, QuotedString

QUOTED = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
ONE_ID = re.compile(r"(\+{0,2}(?:user_id|item_id))=(.*)", re.DOTALL)
SEVERAL_IDS = re.compile(r"(\+{0,2}history)=\s*\[(.*)\]\s*", re.DOTALL)
# one element of a list: a quoted text, or anything up to the next comma
ELEMENT = re.compile(rf"\s*({QUOTED}|[^,]*?)\s*(?:,|$)", re.DOTALL)


def quote_ids(arguments: list[str]) -> list[str]:
    """Put the ids of ``user_id=…``, ``item_id=…`` and ``history=[…]`` into quotes.

    Args:
        arguments: of the command line; those without ids stay as they are.
    """
    return [_quote_argument(argument) for argument in arguments]


def _quote_argument(argument: str) -> str:
    if found := ONE_ID.fullmatch(argument):
        value = found[2].strip()
        is_list = value.startswith("[") and value.endswith("]")  # which the command refuses
        return argument if is_list else f"{found[1]}={_quote(value)}"
    if found := SEVERAL_IDS.fullmatch(argument):
        return f"{found[1]}=[{','.join(_quote(value) for value in _elements(found[2]))}]"
    return argument


def _elements(text: str) -> list[str]:
    elements = []
    place = 0
    while place < len(text) and (found := ELEMENT.match(text, place)):
        elements.append(found[1])
        place = found.end()
    return elements


def _quote(value: str) -> str:
    """The text in Hydra's quotes; one that the user has quoted stays as it is."""
    plain = re.sub(r"(?<!\\)\$\{", r"\\${", value)  # no reference to a setting
    if re.fullmatch(QUOTED, value, re.DOTALL):
        return plain
    return QuotedString(plain, Quote.double).with_quotes()
