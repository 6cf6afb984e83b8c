"""Quotes for ids and conditions on the command line, which Hydra would not read as text.

Such as ``6777_314``, ``1e5``, ``true`` and ``year>=1990``.
"""

import re

from hydra.core.override_parser.types import Quote, QuotedString

QUOTED = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
ONE_ID = re.compile(r"(\+{0,2}(?:user_id|item_id|where))=(.*)", re.DOTALL)
SEVERAL_IDS = re.compile(r"(\+{0,2}(?:history|where))=\s*\[(.*)\]\s*", re.DOTALL)
# one element of a list: a quoted text, or anything up to the next comma
ELEMENT = re.compile(rf"\s*({QUOTED}|[^,]*?)\s*(?:,|$)", re.DOTALL)


def quote_ids(arguments: list[str]) -> list[str]:
    """Put the texts of ``user_id=…``, ``item_id=…``, ``history=[…]`` and ``where=…`` into quotes.

    Args:
        arguments: of the command line; the others stay as they are.
    """
    return [_quote_argument(argument) for argument in arguments]


def _quote_argument(argument: str) -> str:
    if found := SEVERAL_IDS.fullmatch(argument):
        return f"{found[1]}=[{','.join(_quote(value) for value in _elements(found[2]))}]"
    if found := ONE_ID.fullmatch(argument):
        value = found[2].strip()
        is_list = value.startswith("[") and value.endswith("]")  # which the command refuses
        return argument if is_list else f"{found[1]}={_quote(value)}"
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
