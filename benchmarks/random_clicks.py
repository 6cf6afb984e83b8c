"""Random clicks of any size, written chunk by chunk in the format of prepared data.

Benchmarks use them to avoid the time and memory of preparation.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl

from twotower.data.frames import Frames, WithoutFiles
from twotower.data.prepare import store
from twotower.errors import UserError, check_number
from twotower.files import crc32, whole_folder
from twotower.types import Feature, Schema

PER_USER = 30  # interactions; the last two are for validation and test
USERS_PER_CHUNK = 100_000
NUM_CATEGORIES, NUM_SEGMENTS = 20, 100


class RandomClicks(WithoutFiles):
    """A reader without files: :meth:`write` writes random clicks as prepared data.

    Args:
        num_interactions: number of interactions; each user has 30.
        num_items: number of items; an item is drawn less often the higher its index.
        history: whether the history is a user feature.
    """

    name = "random_clicks"

    def __init__(self, num_interactions: int, num_items: int, history: bool) -> None:
        check_number("sizes", num_interactions, PER_USER)
        check_number("num_items", num_items, NUM_CATEGORIES)
        self.num_users = num_interactions // PER_USER
        self.num_items = num_items
        self.history = history

    def read(self, data_dir: Path) -> Frames:
        """Raise an error: :meth:`write` exists to avoid frames of this size."""
        raise UserError("random clicks are only written by src/benchmark.py")

    def write(self, folder: Path) -> None:
        """Write ``folder`` as :func:`~twotower.data.prepare.store.save` would: whole or not at all.

        The caller holds the lock of ``folder``.
        """
        with store.writable(folder.parent), whole_folder(folder) as partial:
            self._write(partial)

    def _write(self, folder: Path) -> None:
        self._write_interactions(folder)
        rng = np.random.default_rng(0)
        user = np.arange(self.num_users, dtype=np.int32)
        item = np.arange(self.num_items, dtype=np.int32)
        offset = np.arange(self.num_users + 1, dtype=np.int64) * PER_USER
        category = rng.integers(NUM_CATEGORIES, size=self.num_items, dtype=np.int32)
        arrays: dict[str, np.ndarray] = {
            "offset": offset,
            "category": category,
            "group": (category > 9).astype(np.int8),
        }
        arrays |= {
            "user.user_id": user + 1,
            "user.segment": 1 + user % NUM_SEGMENTS,
            "item.item_id": item + 1,
        }
        for place, part in ((-2, "val"), (-1, "test")):
            arrays |= {
                f"position.{part}": (offset[1:] + place).astype(self._small),
                f"targets.{part}": np.ones_like(user),
            }
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        pl.DataFrame({"user": user}).write_parquet(folder / "user.parquet")
        pl.DataFrame({"item": item}).write_parquet(folder / "item.parquet")
        checksums = {path.name: crc32(path) for path in sorted(folder.iterdir())}
        meta = {**self._meta(category), "checksums": checksums}
        (folder / "meta.json").write_text(json.dumps(meta))

    @property
    def _small(self) -> type:
        return np.int32 if self.num_users * PER_USER < 2**31 else np.int64

    def _write_interactions(self, folder: Path) -> None:
        """Write the interactions of all users in order, with one chunk of users in memory."""
        num_train = PER_USER - 2
        names = {
            "interactions.user": np.int32,
            "interactions.item": np.int32,
            "position.train": self._small,
        }
        arrays = {}
        for name, kind in names.items():
            size = self.num_users * (num_train if name == "position.train" else PER_USER)
            arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (size,))
        rng = np.random.default_rng(1)
        for first in range(0, self.num_users, USERS_PER_CHUNK):
            end = min(first + USERS_PER_CHUNK, self.num_users)
            user = np.arange(first, end)  # (num,)
            own, train = (slice(first * num, end * num) for num in (PER_USER, num_train))
            arrays["interactions.user"][own] = np.repeat(user, PER_USER)
            item = rng.random(len(user) * PER_USER) ** 2 * self.num_items
            arrays["interactions.item"][own] = item.astype(np.int32)
            position = user[:, None] * PER_USER + np.arange(num_train)  # (num, num_train)
            arrays["position.train"][train] = position.ravel()
        for array in arrays.values():
            array.flush()

    def _meta(self, category: np.ndarray) -> dict[str, object]:
        user = [
            Feature("user_id", "categorical", self.num_users + 1),
            Feature("segment", "categorical", NUM_SEGMENTS + 1),
        ]
        if self.history:
            user.append(Feature("history", "history", self.num_items + 1))
        item = (Feature("item_id", "categorical", self.num_items + 1),)
        sizes = tuple(np.bincount(category, minlength=NUM_CATEGORIES).tolist())
        schema = Schema(tuple(user), item, self.num_items, self.num_items, NUM_CATEGORIES, sizes)
        return {
            "schema": schema.plain(),
            "categories": [f"category {number}" for number in range(NUM_CATEGORIES)],
            "behaviours": [],
            "note": "random",
            "num_users": self.num_users,
            "num_train_users": self.num_users,
            "num_interactions": self.num_users * PER_USER,
            "sources": {},
            "times": {},
            "fingerprint": f"random-{self.num_users}-{self.num_items}",
        }
