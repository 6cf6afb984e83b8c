"""The user's own tables of interactions, users and items: text, Parquet, Arrow or JSON lines."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from twotower.data.frames import Frames
from twotower.data.own_files.clicks import Wishes, read_clicks
from twotower.data.own_files.columns import SIDES, choose_columns, propose_categories
from twotower.data.own_files.context import context_features, context_roles
from twotower.data.own_files.features import Side, read_side
from twotower.data.own_files.files import Source, open_source
from twotower.data.own_files.item_categories import item_categories
from twotower.data.own_files.paths import find, matches, partitions
from twotower.data.own_files.report import coverage, report
from twotower.data.own_files.shown import Pages, with_shown
from twotower.data.own_files.text import TextFormat
from twotower.data.own_files.vectors import read_vectors
from twotower.errors import UserError, check_choice, results
from twotower.types import FeatureKind

KINDS = ("categorical", "multi", "numeric", "vector")
RULES = 7  # raise it when the same table gives other frames, so that it is prepared anew
UNITS = ("s", "ms", "us", "ns", "step", "order")


class Table:
    """Reads a table of interactions and, where there are any, tables of users and items.

    What the settings leave open is inferred from names and values, and printed once.

    Args:
        interactions: path, folder or glob, or several, below ``data_dir`` or the working folder.
        users: the same, of a table with one row per user; None: there is none.
        items: the same, of items.
        columns: columns of ``user``, ``item``, ``time``, ``value``, ``behaviour``, ``weight``,
            ``shown``, ``part`` and ``category`` among the interactions; None looks for the usual
            names, then at values.
        user_columns: column of ``user`` in ``users``.
        item_columns: columns of ``item``, ``category`` and ``title`` in ``items``.
        user_features: kinds of columns of ``users``: ``categorical``, ``multi``, ``numeric`` or
            ``vector``; the others are inferred.
        item_features: the same for ``items``.
        user_vectors: vectors by name, from a file with a row for each user, see
            :func:`~twotower.data.own_files.vectors.read_vectors`; None: there are none.
        item_vectors: the same for ``items``.
        pages: path, folder or glob, or several, of a table with a row for each item that was shown;
            ``shown`` in ``columns`` is then the column that names the page in both; None: ``shown``
            holds lists.
        pages_item: column of the item in ``pages``; None: the one of ``interactions``.
        context: columns of ``interactions`` that are features of the request, with their kinds
            ``categorical`` or ``numeric``; a kind None is inferred. None: there are none.
        ignore: columns of ``users`` and ``items`` to leave out; ``*`` stands for any characters.
        list_separator: text with this separator is a list of values; None: no text is.
        time_unit: ``s``, ``ms``, ``us``, ``ns`` since 1970, ``step`` of one clock, ``order`` of
            each user alone; None infers it from the size of the numbers.
        time_format: of dates, in the letters of ``strptime``; None tries the usual ones. Without a
            zone they are UTC.
        behaviours: which to keep; several are kept apart; None keeps all without distinction.
        drop_incomplete: drop rows without user, item, time or weight instead of refusing them.
        separator: between the fields of text files; None takes that of the header.
        header: names of the columns of text files without a header line.
        quote: around fields that hold separators; None: quotation marks are ordinary characters.
        missing: words that stand for a missing value, as null, NaN, empty text and blanks do.
    """

    name = "table"

    def __init__(
        self,
        interactions: str | list[str] | None,
        users: str | list[str] | None,
        items: str | list[str] | None,
        columns: dict[str, str | None],
        user_columns: dict[str, str | None],
        item_columns: dict[str, str | None],
        user_features: dict[str, str] | None,
        item_features: dict[str, str] | None,
        ignore: list[str],
        list_separator: str | None,
        time_unit: str | None,
        time_format: str | None,
        behaviours: list[str] | None,
        drop_incomplete: bool,
        separator: str | None,
        header: list[str] | None,
        quote: str | None,
        missing: list[str],
        user_vectors: dict[str, str] | None = None,
        item_vectors: dict[str, str] | None = None,
        context: dict[str, str | None] | None = None,
        pages: str | list[str] | None = None,
        pages_item: str | None = None,
    ) -> None:
        if not interactions:
            raise UserError(
                "data=table needs your file: set data.reader.interactions=clicks.csv, say"
            )
        if time_unit is not None:
            check_choice("data.reader.time_unit", time_unit, UNITS)
        for side, declared in (("user", user_features), ("item", item_features)):
            for column, kind in (declared or {}).items():
                check_choice(f"data.reader.{side}_features.{column}", kind, KINDS)
        for name, mark in (("separator", separator), ("quote", quote)):
            if mark is not None and len(mark.encode()) != 1:
                raise UserError(
                    f'data.reader.{name} must be one character (a tab is "\\t"), got {mark!r}'
                )
        if behaviours is not None and (not behaviours or len(set(behaviours)) < len(behaviours)):
            raise UserError(
                f"data.reader.behaviours must name different behaviours, got {behaviours}; "
                "null takes all"
            )
        self.paths = {"interactions": interactions, "users": users, "items": items}
        self.columns = {"interactions": columns, "users": user_columns, "items": item_columns}
        # the values are of KINDS
        self.features: dict[str, dict[str, Any]] = {
            "users": user_features or {},
            "items": item_features or {},
        }
        self.vectors = {"users": user_vectors or {}, "items": item_vectors or {}}
        for name, paths in self.vectors.items():
            if paths and not self.paths[name]:
                raise UserError(
                    f"data.reader.{name[:-1]}_vectors needs a table: set data.reader.{name}"
                )
        self.context: dict[str, Any] = dict(context or {})
        for column, kind in self.context.items():
            if kind is not None:
                check_choice(f"data.reader.context.{column}", kind, ("categorical", "numeric"))
        if pages and not columns.get("shown"):
            raise UserError(
                "data.reader.pages needs the column that names the page of an interaction: set "
                "data.reader.columns.shown"
            )
        if pages:
            self.paths["pages"] = pages
            self.columns["pages"] = {"item": pages_item}
        self.ignore = ignore
        self.list_separator = list_separator
        wanted = None if behaviours is None else [str(name) for name in behaviours]
        self.wishes = Wishes(time_unit, time_format, wanted, drop_incomplete)  # type: ignore[arg-type]
        self.text_format = TextFormat(separator, header, quote)
        self.missing = [str(word) for word in missing]

    def options(self) -> dict[str, object]:
        """All settings, and the version of the rules by which tables are read."""
        return {**vars(self), "rules": RULES}

    def sources(self, data_dir: Path) -> list[Path]:
        """The files that are there."""
        patterns = [
            pattern
            for paths in self._all_paths().values()
            for pattern in ([paths] if isinstance(paths, str) else paths or [])
        ]
        return [path for pattern in patterns for path in matches(pattern, data_dir)]

    def fetch(self, data_dir: Path) -> None:
        """Nothing to download: refuse what is missing."""
        results(
            partial(find, f"data.reader.{name}", paths, data_dir)
            for name, paths in self._all_paths().items()
            if paths
        )

    def _all_paths(self) -> dict[str, str | list[str] | None]:
        """Paths by setting."""
        vectors = {
            f"{name[:-1]}_vectors.{feature}": path
            for name, paths in self.vectors.items()
            for feature, path in paths.items()
        }
        return {**self.paths, **vectors}

    def read(self, data_dir: Path, path: Path | None = None) -> Frames:
        """Read the tables.

        Args:
            data_dir: raw files.
            path: file for the interactions, which are then read a part at a time; those with
                context or shown items are in memory. None: all are.

        Raises:
            UserError: for files that cannot be read, missing columns and values of the wrong type,
                naming file, line and cure.
        """
        with ExitStack() as stack:
            sources = {}
            for name, paths in self.paths.items():
                if paths:
                    setting = f"data.reader.{name}"
                    files = find(setting, paths, data_dir)
                    text_format = self.text_format
                    if name != "interactions":  # whose header alone can be set
                        text_format = text_format._replace(header=None)
                    folders = partial(partitions, paths, data_dir)
                    how = (text_format, self.missing, stack, folders)
                    sources[name] = open_source(setting, files, *how)
            return self._frames(sources, data_dir, path)

    def _frames(self, sources: dict[str, Source], data_dir: Path, path: Path | None) -> Frames:
        source = sources["interactions"]
        shown = sources.pop("pages", None)
        roles = choose_columns(sources, self.columns, self.wishes.time_unit)
        pages = self._pages(shown, roles["interactions"]) if shown else None
        columns = roles["interactions"] | context_roles(source, list(self.context))
        sides = {
            name: self._side(sources[name], name, roles[name], data_dir)
            for name in SIDES
            if name in sources
        }
        whole = {
            side: name not in sides or sides[name].frame[side].dtype.is_integer()
            for name, side in SIDES.items()
        }
        clicks = read_clicks(source, columns, self.wishes, whole, path)
        interactions: pl.DataFrame | pl.LazyFrame = clicks.frame
        context: dict[str, FeatureKind] = {}
        if path is None or self.context or "shown" in columns:
            frame, context = context_features(clicks.frame.collect(), self.context)
            interactions = with_shown(frame, self.list_separator, pages)
        listed = {sources[name]: side for name, side in sides.items()}
        remarks = [report(source, clicks.num_rows, columns, clicks.meaning, listed)]
        remarks += clicks.remarks
        tables: dict[str, pl.DataFrame] = {}
        for name, side in SIDES.items():
            ids = clicks.frame.select(pl.col(side).unique()).collect(engine="streaming")[side]
            tables[name] = pl.DataFrame(schema={side: ids.dtype})
            if name in sides:
                same_type = pl.col(side).cast(ids.dtype, strict=False)
                tables[name] = sides[name].frame.with_columns(same_type)
                remarks += coverage(ids, tables[name][side], side, source, sources[name])
        kinds = {name: sides[name].kinds if name in sides else {} for name in SIDES}
        items = tables["items"]
        if "category" in items.columns:
            pass
        elif "category" in columns:
            found, remark = item_categories(source, columns, clicks.item, items["item"].dtype)
            tables["items"] = items.join(
                found, on="item", how="full", coalesce=True, maintain_order="left_right"
            )
            kinds["items"] = kinds["items"] | {"category": "categorical"}
            remarks.append(remark)
        else:
            tables["items"] = items.with_columns(category=pl.lit(None, pl.String))
            remarks += propose_categories(sources, roles)
        return Frames(
            interactions,
            tables["users"],
            tables["items"],
            kinds["users"],
            kinds["items"],
            clicks.time_unit,
            clicks.behaviours,
            clicks.dropped,
            tuple(remarks),
            where=clicks.where,
            context_features=context,
        )

    def _pages(self, source: Source, roles: dict[str, str]) -> Pages:
        pages = Pages(source, roles["shown"], self.columns["pages"]["item"] or roles["item"])
        pages.check()
        return pages

    def _side(self, source: Source, name: str, roles: dict[str, str], data_dir: Path) -> Side:
        def vectors(ids: pl.Series) -> dict[str, pl.Series]:
            found = {}
            for feature, pattern in self.vectors[name].items():
                setting = f"data.reader.{name[:-1]}_vectors.{feature}"
                path, *others = find(setting, [pattern], data_dir)
                if others:
                    raise UserError(
                        f"{setting}={pattern} is {1 + len(others)} files: vectors are read from "
                        "one, name it"
                    )
                found[feature] = read_vectors(setting, path, ids)
            return found

        choices = (self.features[name], self.ignore, self.list_separator)
        return read_side(source, SIDES[name], roles, *choices, vectors)
