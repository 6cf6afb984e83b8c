"""Checks of the command line, and Hydra's messages in our words."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from twotower.errors import UserError
from twotower.run.conf import CONF, PARTS, closest, known, options, read, roots, suggestion
from twotower.run.raw_ids import QUOTED
from twotower.wording import one_line, override, typed

CLOSING = {"(": ")", "[": "]", "{": "}"}


def check_arguments(command: str, arguments: Sequence[str]) -> None:
    """Refuse a malformed command line, for which Hydra would print its usage or its grammar.

    Args:
        command: a file of ``conf/``.
        arguments: without the name of the script.

    Raises:
        UserError: with the form that works.
    """

    def refuse(message: str) -> NoReturn:
        _refuse_flag(command, arguments)
        raise UserError(f"{message} (give settings as name=value, -m first; --help shows them)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parsed = parser.parse_args(list(arguments))
    if parsed.experimental_rerun is not None:
        raise UserError("--experimental-rerun is not supported: it unpickles a file")
    overrides = parsed.overrides
    for place, text in enumerate(overrides):
        following = overrides[place + 1 :]
        _refuse_blanks(command, text, following)
        try:
            OverridesParser.create().parse_override(text)
        except HydraException:
            raise UserError(f"{text}: {_broken(text, following)}") from None
        _refuse_option(text)


def with_folder_of_search(arguments: Sequence[str]) -> list[str]:
    """``search=<folder>`` as ``searched=<folder>``: else Hydra looks for a file of conf/search/."""
    names = options("search")
    confirms = "sweep=confirm" in arguments  # which takes nothing but a folder
    found = []
    for text in arguments:
        key, _, value = text.partition("=")
        is_folder = value not in names and ("/" in value or Path(value).is_dir())
        if key == "search" and (confirms or is_folder):
            text = f"searched={value}"
        found.append(text)
    return found


def missing(setting: str) -> UserError:
    """What to type for a setting that is not given: an example of the command that runs."""
    command = HydraConfig.get().job.config_name if HydraConfig.initialized() else ""
    if command and (CONF / f"{command}.yaml").exists():  # no file of the user's own
        for example in read(command).examples:
            if f"{setting}=" in example:
                return UserError(f"{setting} is missing: {in_this_form(example)}")
    return UserError(f"{setting} is missing: give {setting}=…")


def in_this_form(example: str) -> str:
    """An example of ``conf/`` in the form in which this process was started."""
    return re.sub(r"python src/(\w+)\.py", lambda found: typed(found[1]), example)


def _refuse_flag(command: str, arguments: Sequence[str]) -> None:
    """``--model dat`` and ``--model=dat``: a setting in the form of other programs."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not (found := closest(command, name)):
            continue
        following = [] if equals else arguments[place + 1 : place + 2]
        raise UserError(f"{argument}: write {_written(command, found, [value, *following])}")


def _written(command: str, name: str, words: Sequence[str]) -> str:
    """A setting with the first word that can be its value."""
    for word in words:
        if word and "=" not in word:
            return f"{name}={word}"
    values = [
        read(root).settings[name].value for root in roots(command) if name in read(root).settings
    ]
    return f"{name}={'true' if values == ['false'] else '…'}"


def _refuse_blanks(command: str, text: str, following: Sequence[str]) -> None:
    """``model = dat``, ``model= dat``, ``model =dat`` and ``model dat``."""
    line = " ".join([text, *following[:2]])
    blank = re.match(r"([\w./+@-]+)( = ?|= )([^\s=]+)(?: |$)", line)
    if blank and not re.match(r"\S+= +\S", text):  # which Hydra accepts
        raise UserError(f"{blank[0].strip()}: write {blank[1]}={blank[3]}, without blanks")
    key, equals, _ = text.partition("=")
    if text.startswith("~") or (key.strip("+") and equals):
        return
    if text in known(command):
        raise UserError(f"{text}: write {_written(command, text, following[:1])}")
    raise UserError(f"{text}: a setting is given as name=value (a value with blanks needs quotes)")


def _broken(text: str, following: Sequence[str]) -> str:
    """What is wrong with an override that does not follow Hydra's grammar."""
    key, _, value = text.partition("=")
    if re.fullmatch(r"\S+=\S+( +[\w./+~@]+=\S+)+", text):
        return "each setting is an argument of its own, without quotes around several"
    for end in range(len(following)):
        whole = " ".join([text, *following[: end + 1]])
        if _unbalanced(value) and not _unbalanced(whole):
            return f"the shell ends an argument at a blank: write '{whole}'"
    reason = "spaces, commas, brackets and = in a text need quotes within quotes"
    if found := _unbalanced(value):
        reason = f"{found}; as a text it needs quotes within quotes"
    return f"{reason}: {_quoted(key, value)}"


def _unbalanced(value: str) -> str:
    """The bracket or quotation mark that has no partner, empty if there is none."""
    rest = re.sub(QUOTED, "", value)
    if mark := re.search("[\"']", rest):
        return f"the quotation mark {mark[0]} is not closed"
    expected: list[str] = []
    for bracket in re.findall(r"[()\[\]{}]", rest):
        if bracket in CLOSING:
            expected.append(bracket)
        elif not expected or CLOSING[expected.pop()] != bracket:
            return f"the bracket {bracket} is not opened"
    return f"the bracket {expected[-1]} is not closed" if expected else ""


def _quoted(key: str, value: str) -> str:
    return override(key, value.strip("\"'"))


def _refuse_option(text: str) -> None:
    """``data.split=temporal``, and a part of other options such as ``data=base``."""
    key, _, value = text.lstrip("+").partition("=")
    group = key.replace(".", "/")
    if f"{group}/{value}" in PARTS:
        raise UserError(_no_option(group, value, options(group)))
    if group != key and value in options(group):
        raise UserError(f"{text}: an option is chosen with a slash: write {group}={value}")


def _no_option(group: str, option: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(option, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{group}={option}: no such option{hint}; choose from {', '.join(names)}"


def explain_config(command: str, error: Exception, text: str, arguments: Sequence[str] = ()) -> str:
    """One line for an error of Hydra or OmegaConf; with a suggestion for a typo.

    Args:
        command: a file of ``conf/``.
        error: as it was raised.
        text: its message and those of its causes, in one line.
        arguments: of the command line.
    """
    if match := re.search(r"Could not find '([\w/]+)/([\w.-]*)'", text):
        group, option = match.groups()
        listed = text.split("Available options", 1)[-1].split("Config search path")[0]
        names = re.findall(r"[\w.-]+", listed.split(":", 1)[-1])
        return _no_option(group, option, [n for n in names if f"{group}/{n}" not in PARTS])
    if match := re.search(r"Could not override '([\w.@/-]+)'", text):
        hint = suggestion(command, match[1], arguments)
        if not hint and match[1] in known("train") and "ckpt_path" in known(command):
            hint = " (it comes from the checkpoint)"
        return f"unknown setting {match[1]}{hint}"
    if match := re.search(r"Sweep parameters '(.*?)' requires", text):
        return f"{match[1]}: several values are a sweep and need -m"
    if match := re.search(r"Ambiguous value for argument '(.*?)' 1\.", text):
        key, _, value = match[1].partition("=")
        return (
            f"{match[1]}: several values are a sweep and need -m; a list is {key}=[{value}], a "
            f"text {_quoted(key, value)}"
        )
    if match := re.search(
        r"(?:Multiple values for )?(\w+)[\w/]*(?: appears more than once|\. To)", text
    ):
        return f"{match[1]} is chosen already: write {match[1]}=…, without +"
    return one_line(error)
