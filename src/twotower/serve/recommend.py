"""Gets recommendations or similar items: a table or JSON, or a file with those of all users."""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from twotower.errors import UserError
from twotower.run.checkpoint.checkpoints import load_checkpoint, restore_config
from twotower.run.checkpoint.saved_config import resolved
from twotower.serve.everyone import check_target, write_lists
from twotower.serve.load import from_checkpoint
from twotower.serve.retriever import RawId, Retriever
from twotower.wording import PlainConsole, printable

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
        question: the raw id or ids, and whether the data have the user or item.
        title: of the list.
        notes: limits of the answer, a line each.
        history: the user's last items, the latest first; None for an item.
        found: see :class:`~twotower.serve.retriever.Retriever`.
    """

    question: dict[str, Any]
    title: str
    notes: list[str]
    history: pl.DataFrame | None
    found: pl.DataFrame


def recommend(config: DictConfig) -> Answer | None:
    """Answer the question of the config, or write the lists of all users.

    Raises:
        UserError: for no question or two, unknown items, a ``k`` out of range, and a checkpoint
            that does not fit the data.
    """
    name, value = _question(config)
    if name == "item_id" and config.export is not None:
        raise UserError("export= is for the lists of users: leave it out with item_id")
    if name == "output":
        check_target(Path(value), config.force)
    with redirect_stdout(sys.stderr):  # preparation prints lines, and JSON must stand alone
        checkpoint = load_checkpoint(config.ckpt_path, trusted=config.trusted)
        saved = restore_config(checkpoint["twotower"], resolved(config)[0])
        model = from_checkpoint(saved, checkpoint, config.export)
        if name == "output":
            num_rows = write_lists(
                model, Path(value), config.k, config.seen, _where(config), config.context
            )
        else:
            answer = ANSWERS[name](model, value, config)
    if name == "output":
        _print_file(model, Path(value), num_rows, config.format)
        return None
    if config.format == "json":
        _print_json(model, answer)
    else:
        _print_tables(model, answer, config.k)
    return answer


def _question(config: DictConfig) -> tuple[str, Any]:
    """Name and value of the one question, checked before anything is loaded."""
    given = [name for name in (*ANSWERS, "output") if config[name] is not None]
    if len(given) != 1:
        names = " and ".join(given) or "none"
        raise UserError(
            "give one of user_id=…, item_id=…, history=[…] and output=<file>.parquet (all users), "
            f"here {'are' if given else 'is'} {names}"
        )
    (name,) = given
    value = config[name]
    is_list = OmegaConf.is_list(value)
    if is_list != (name == "history"):
        form = "give one id" if is_list else "give a list, history=[1,2,3]"
        raise UserError(f"{name}={value}: {form}")
    ids = list(value) if is_list else [value]
    if "" in ids:
        raise UserError(f"{name} holds an empty id")
    return name, ids if is_list else value


def _for_user(model: Retriever, user_id: RawId, config: DictConfig) -> Answer:
    row = model.users.find(user_id)
    if row is None:
        return _for_unknown_user(model, user_id, config)
    notes = []
    if not model.trained(user_id):
        notes.append(
            f"training never saw this user: {_policy(model)}; features and history are the user's "
            "own"
        )
    if model.data.mask_seen == "except_targets" and config.seen is None:
        notes.append(
            "the evaluation kept targets that the user had seen as candidates "
            "(data.mask_seen=except_targets); future targets are unknown, so all seen items are "
            "left out: seen=true shows them"
        )
    question = {"user_id": model.users.raw[row], "known": True}
    notes += _unknown_context(model, config)
    found = model.recommend(
        user_id, config.k, config.seen, where=_where(config), context=config.context
    )
    return Answer(question, f"for user {user_id}", notes, model.history(user_id, NUM_SHOWN), found)


def _for_unknown_user(model: Retriever, user_id: RawId, config: DictConfig) -> Answer:
    why = model.users.why_not(user_id)
    reason = f"user {user_id}: {why}" if why else f"there is no user {user_id} in these data"
    note = f"{reason}; this is the list for a user without history or features: {_policy(model)}"
    features = {"user_hash": user_id} if model.hashes_users else None
    found = model.recommend_history(
        [], config.k, config.seen, features, where=_where(config), context=config.context
    )
    question = {"user_id": user_id, "known": False}
    return Answer(question, "for an unknown user", [note], model.catalogue.clear(), found)


def _for_history(model: Retriever, history: list[RawId], config: DictConfig) -> Answer:
    notes = [f"a user whom the data do not have: {_policy(model)}"]
    if not model.reads_history:
        notes.append(
            "this model does not read histories: every new user gets this list, without the items "
            "already seen"
        )
    items = model.newcomer(history).items
    question = {"history": model.items.raw[items.numpy()].to_list(), "known": False}
    shown = model.catalogue[items.flip(0)[:NUM_SHOWN].numpy()]
    notes += _unknown_context(model, config)
    found = model.recommend_history(
        history, config.k, config.seen, where=_where(config), context=config.context
    )
    return Answer(question, "for a new user", notes, shown, found)


def _for_item(model: Retriever, item_id: RawId, config: DictConfig) -> Answer:
    item = model.catalogue.row(model.items.row(item_id), named=True)
    notes = []
    if item["cold"]:
        notes.append(f"training never saw this item: {_policy(model)}; its features are its own")
    name = f" ({item['title']})" if item["title"] else ""
    title = f"nearest to item {item_id}{name}, by the cosine of item vectors"
    question = {"item_id": item["item"], "known": True}
    return Answer(question, title, notes, None, model.similar(item_id, config.k, _where(config)))


def _where(config: DictConfig) -> list[str]:
    """The conditions on items."""
    where = config.where
    return list(where) if OmegaConf.is_list(where) else [where] * (where is not None)


def _unknown_context(model: Retriever, config: DictConfig) -> list[str]:
    missing = [name for name in model.data.schema.context if name not in (config.context or {})]
    if not missing:
        return []
    setting = f"context={{{missing[0]}: …}}"
    return [f"of this request {', '.join(missing)} is not known: give it, '{setting}'"]


Answering = Callable[[Retriever, Any, DictConfig], Answer]
ANSWERS: dict[str, Answering] = {
    "user_id": _for_user,
    "item_id": _for_item,
    "history": _for_history,
}


def _policy(model: Retriever) -> str:
    if model.hashes_users:
        return "the id's vector is that of its hash, whose rows other ids share (data.hashed)"
    name = f", cold_ids={model.cold_ids}" if model.cold_ids else ""
    return f"the id's vector is {POLICIES[model.cold_ids]}{name}"


def _print_file(model: Retriever, target: Path, num_rows: int, form: str) -> None:
    num_users = len(model.users.raw)
    if form == "json":
        record = {"output": str(target), "users": num_users, "rows": num_rows}
        print(json.dumps({"model": model.name, **record}, indent=1))
        return
    console = PlainConsole(soft_wrap=True)
    console.print(model.name, style="bold")
    console.print(f"{num_rows:,} rows (user, rank, item, score) for {num_users:,} users:")
    console.print(str(target))


def _print_json(model: Retriever, answer: Answer) -> None:
    record = {
        "model": model.name,
        "question": answer.question,
        "cold_ids": model.cold_ids,
        "notes": answer.notes,
        "history": None if answer.history is None else answer.history.to_dicts(),
        "found": answer.found.to_dicts(),
    }
    record = {key: value for key, value in record.items() if value is not None}
    print(json.dumps(record, indent=1))  # in ASCII: a title may hold a terminal's control codes


def _print_tables(model: Retriever, answer: Answer, k: int) -> None:
    console = PlainConsole()
    console.print(model.name, style="bold")
    for note in answer.notes:
        console.print(note, style="yellow")
    if answer.history is not None and len(answer.history):
        _print_table(console, "last items, the latest first", answer.history.drop("cold"))
    _print_table(console, answer.title, answer.found)
    if model.index is not None and len(answer.found) < k:
        console.print(
            f"the index found {len(answer.found)} items for k={k}: unless the user has seen all "
            "others, export with a larger index.num_probes or index.ef_search, or leave out export="
        )
    elif not len(answer.found):
        console.print("the user has seen all items: seen=true shows them again")


def _print_table(console: Console, title: str, rows: pl.DataFrame) -> None:
    """Print a frame without its empty columns."""
    console.print(f"\n{title}", style="bold")
    table = Table(pad_edge=False)
    names = [name for name in rows.columns if rows[name].null_count() < len(rows)]
    for name in names:
        side: Any = "right" if rows[name].dtype.is_numeric() else "left"
        table.add_column(name, justify=side, overflow="ellipsis", no_wrap=name != "title")
    for row in rows.select(names).iter_rows(named=True):
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    console.print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "seen":
        return "seen" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))
