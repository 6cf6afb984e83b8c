"""One question to a trained model, answered as a table or as JSON: what ``src/recommend.py`` does."""

import json
import re
import sys
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import polars as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from twotower.errors import UserError, check_choice
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.saved_config import resolved
from twotower.serve.retriever import Retriever, from_checkpoint
from twotower.wording import PlainConsole, printable

ASKED = ("user_id", "item_id", "history")
UNSAFE = re.compile(
    "[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)  # JSON escapes those below a blank itself
NUM_SHOWN = 10  # of a user's last items
POLICIES = {
    "mean": "the mean of all trained ids",
    "zero": "a zero vector",
    "trained": "the row trained by id dropout",
    None: "the model's own",
}


class Answer(NamedTuple):
    """What is shown.

    Attributes:
        question: as it was asked.
        title: of the list.
        notes: what to know of it.
        history: the user's last items, the latest first; None for an item.
        found: see :class:`~twotower.serve.retriever.Retriever`.
    """

    question: dict[str, Any]
    title: str
    notes: list[str]
    history: pl.DataFrame | None
    found: pl.DataFrame


def recommend(config: DictConfig) -> Answer:
    """Answer the question of the config.

    Raises:
        UserError: for no question or two, unknown items, a ``k`` out of range, and a checkpoint that does not fit the data.
    """
    name, value = _question(config)
    with redirect_stdout(sys.stderr):  # preparing may speak, and JSON has to stand alone
        checkpoint = load_checkpoint(config.ckpt_path, trusted=config.trusted)
        saved = restore_config(checkpoint["twotower"], resolved(config)[0])
        model = from_checkpoint(saved, checkpoint)
        answer = _answer(model, name, value, config)
    if config.format == "json":
        _print_json(model, answer)
    else:
        _print_tables(model, answer)
    return answer


def _answer(model: Retriever, name: str, value: Any, config: DictConfig) -> Answer:
    if name == "user_id":
        return _for_user(model, value, config)
    return (
        _for_item(model, value, config) if name == "item_id" else _for_history(model, value, config)
    )


def _question(config: DictConfig) -> tuple[str, Any]:
    """Which of the three is asked, before anything is loaded."""
    check_choice("format", config.format, ("table", "json"))
    if not isinstance(config.k, int) or isinstance(config.k, bool) or config.k < 1:
        raise UserError(f"k={config.k}: give a whole number >= 1")
    if config.seen not in (None, True, False):
        raise UserError(f"seen must be true, false or null, got {config.seen!r}")
    asked = {name: config[name] for name in ASKED if config[name] is not None}
    if len(asked) != 1:
        given = " and ".join(asked) or "none"
        raise UserError(
            f"give one of user_id=…, item_id=… and history=[…], here {'is' if not asked else 'are'} {given}"
        )
    ((name, value),) = asked.items()
    value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if (name == "history") != isinstance(value, list):
        raise UserError(
            f"{name}={value}: "
            + ("give a list, history=[1,2,3]" if name == "history" else "give one id")
        )
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, (int, str)) or isinstance(one, bool):
            raise UserError(
                f"{name}={one} is no id but a number or a switch: put the id into quotes, {name}='\"…\"'"
            )
        if one == "":
            raise UserError(f"{name} holds an empty id")
    return name, value


def _for_user(model: Retriever, user_id: int | str, config: DictConfig) -> Answer:
    row = model.users.find(user_id)
    question = {
        "user_id": user_id if row is None else model.users.raw[row],
        "known": row is not None,
    }
    if row is None:
        found = model.recommend_history([], config.k, config.seen)
        why = model.users.why_not(user_id)
        reason = f"user {user_id}: {why}" if why else f"there is no user {user_id} in these data"
        note = f"{reason}; this is what anybody gets of whom nothing is known: {_policy(model)}"
        return Answer(
            question, "for a user of whom nothing is known", [note], model.catalogue.clear(), found
        )
    notes = []
    if not model.trained(user_id):
        notes.append(
            f"training never saw this user: {_policy(model)}; features and history are the user's own"
        )
    if model.data.mask_seen == "except_targets" and config.seen is None:
        notes.append(
            "the evaluation kept targets that the user had seen as candidates (data.mask_seen=except_targets); "
            "of the future none is known, so all that was seen is left out: seen=true shows it"
        )
    found = model.recommend(user_id, config.k, config.seen)
    return Answer(question, f"for user {user_id}", notes, model.history(user_id, NUM_SHOWN), found)


def _for_history(model: Retriever, history: list[int | str], config: DictConfig) -> Answer:
    notes = [f"a user whom the data do not have: {_policy(model)}"]
    if not model.reads_history:
        notes.append(
            "this model does not read histories: every new user gets this list, but for what is left out as seen"
        )
    items = model.newcomer(history).items.flip(0)[:NUM_SHOWN]
    found = model.recommend_history(history, config.k, config.seen)
    ids = [model.items.raw[model.items.row(item)] for item in history]
    return Answer(
        {"history": ids, "known": False},
        "for a new user",
        notes,
        model.catalogue[items.numpy()],
        found,
    )


def _for_item(model: Retriever, item_id: int | str, config: DictConfig) -> Answer:
    row = model.items.row(item_id)
    notes = (
        [f"training never saw this item: {_policy(model)}; its features are its own"]
        if model.catalogue["cold"][row]
        else []
    )
    called = model.catalogue["title"][row]
    title = f"nearest to item {item_id}{f' ({called})' if called else ''}, by the cosine of item vectors"
    return Answer(
        {"item_id": model.items.raw[row], "known": True},
        title,
        notes,
        None,
        model.similar(item_id, config.k),
    )


def _policy(model: Retriever) -> str:
    name = f", cold_ids={model.cold_ids}" if model.cold_ids else ""
    return f"the id's vector is {POLICIES[model.cold_ids]}{name}"


def _print_json(model: Retriever, answer: Answer) -> None:
    history = None if answer.history is None else answer.history.to_dicts()
    record = {
        "model": model.name,
        "question": answer.question,
        "cold_ids": model.cold_ids,
        "notes": answer.notes,
        "history": history,
        "found": answer.found.to_dicts(),
    }
    text = json.dumps(
        {key: value for key, value in record.items() if value is not None},
        ensure_ascii=False,
        indent=1,
    )
    # what a terminal would obey is written as JSON's escapes, so that the text stays what it is
    print(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _print_tables(model: Retriever, answer: Answer) -> None:
    console = PlainConsole()
    console.print(model.name, style="bold")
    for note in answer.notes:
        console.print(note, style="yellow")
    if answer.history is not None and len(answer.history):
        _print_table(console, "last items, the latest first", answer.history.drop("cold"))
    _print_table(console, answer.title, answer.found)
    if not len(answer.found):
        console.print("nothing is left that the user has not seen: seen=true shows it again")


def _print_table(console: Console, title: str, rows: pl.DataFrame) -> None:
    """Columns that hold nothing are left out."""
    console.print(f"\n{title}", style="bold")
    table = Table(pad_edge=False)
    names = [name for name in rows.columns if rows[name].null_count() < len(rows)]
    for name in names:
        number = rows[name].dtype.is_numeric()
        table.add_column(
            name,
            justify="right" if number else "left",
            overflow="ellipsis",
            no_wrap=name != "title",
        )
    for row in rows.select(names).iter_rows(named=True):
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    console.print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "seen":
        return "seen" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))
