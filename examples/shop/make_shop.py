"""Make up a shop as a company has it: clicks, users, items, texts, pages shown, context, weights.

python examples/shop/make_shop.py shop --events 5000000

What is planted, so that each part of the data helps a model that reads it:

- A text vector of each item tells its topic, and nothing else does. New items come after nine
  tenths of the time.
- Each user has a favourite topic, and a budget, which decides the price.
- On a phone people want small things, at a desk large ones: the context of the request.
- After a purchase of one kind the next purchase is of the next kind. Views say nothing of kinds, so
  the behaviour of each event in the history counts.
- More than half of the events are views of advertisements, from another topic than the user's. A
  column tells how far each event can be trusted: the weight.
- The best items of a topic, kind, size and price are rarely shown, and taken whenever they are. The
  items shown beside the chosen one tell that; clicks alone say the contrary.

In the last tenth of the time there are no advertisements, and the best items are always shown.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

TOPICS, KINDS, SIZES, PRICES = 6, 4, 2, 3
CELLS = TOPICS * KINDS * SIZES * PRICES
WIDTH = 16  # of a text vector
PER_USER = 40  # events
BESIDE = 4  # items shown beside the chosen one
LATE = 0.9  # the share of the time after which new items come and advertisements end
DAYS = 60
START = 1_767_225_600  # 2026-01-01

Array = NDArray[Any]


class Items:
    """The catalogue. An item's cell is its topic, kind, size and price together.

    Args:
        per_cell: items of each cell; in addition one new item for ten of them, at least one.
        rng: generator.
    """

    def __init__(self, per_cell: int, rng: np.random.Generator) -> None:
        self.per_cell, self.num_new = per_cell, max(1, per_cell // 10)
        cell = np.arange(CELLS * (per_cell + self.num_new)) % CELLS
        self.topic, self.kind, self.size, self.price = np.unravel_index(
            cell, (TOPICS, KINDS, SIZES, PRICES)
        )
        directions = rng.normal(size=(TOPICS, WIDTH))
        noise = 0.4 * rng.normal(size=(len(cell), WIDTH))
        self.text = (directions[self.topic] + noise).astype(np.float32)

    def of_cell(self, cell: Array, place: Array) -> Array:
        """The items at ``place`` of each cell: 0 is its best one, the new ones are at the end."""
        found: Array = place * CELLS + cell
        return found


def write_shop(folder: Path, num_events: int, seed: int = 0) -> None:
    """Write ``clicks.parquet``, ``users.csv``, ``items.parquet`` and ``text.npy``.

    Args:
        folder: made if it is not there.
        num_events: about as many, 40 of each user.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    num_users = max(1, num_events // PER_USER)
    items = Items(max(BESIDE + 2, round(4 * num_events**0.5 / CELLS)), rng)
    order = rng.permutation(len(items.topic))  # so that an id says nothing
    topic, budget = rng.integers(TOPICS, size=num_users), rng.integers(PRICES, size=num_users)
    moments = np.sort(rng.random((num_users, PER_USER)), axis=1)
    need = rng.integers(KINDS, size=num_users)
    clicks = []
    for moment in moments.T:
        step = _events(items, topic, budget, need, moment, rng)
        bought = step["event"] == 1
        need = np.where(bought, (items.kind[step["item"]] + 1) % KINDS, need)
        clicks.append(_table(step, moment, order))
    folder.mkdir(parents=True, exist_ok=True)
    table = pl.concat(clicks).sort("time", "user", maintain_order=True)
    table.write_parquet(folder / "clicks.parquet")
    towns = rng.choice(["north", "south", "east", "west"], num_users)
    users = pl.DataFrame({"user": _names("u", np.arange(num_users)), "town": towns})
    budgets = pl.Series("budget", np.array(["low", "middle", "high"])[budget])
    users.with_columns(budgets).write_csv(folder / "users.csv")
    back = np.argsort(order)  # the item of each id
    pl.DataFrame(
        {
            "item": np.arange(len(back)),
            "title": [f"thing {number}" for number in range(len(back))],
            "kind": _names("kind ", items.kind[back]),
            "size": np.array(["small", "large"])[items.size[back]],
            "price": (10.0 ** (1 + items.price[back]) * rng.uniform(1, 3, len(back))).round(2),
        }
    ).write_parquet(folder / "items.parquet")
    np.save(folder / "text.npy", items.text[back])


def _events(
    items: Items,
    topic: Array,
    budget: Array,
    need: Array,
    moment: Array,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """The next event of each user."""
    num, is_late = len(moment), moment >= LATE
    draw = rng.random(num)
    is_advert = ~is_late & (draw < 0.55)
    bought = np.where(is_late, draw < 0.8, draw > 0.6)
    device = rng.integers(SIZES, size=num)
    advertised = (topic + 1) % TOPICS
    kind = np.where(bought, need, rng.integers(KINDS, size=num))
    cell = np.ravel_multi_index(
        (
            np.where(is_advert, advertised, _mostly(topic, TOPICS, rng)),
            _mostly(kind, KINDS, rng),
            _mostly(device, SIZES, rng),
            _mostly(budget, PRICES, rng),
        ),
        (TOPICS, KINDS, SIZES, PRICES),
    )
    # a page is a row of places in the cell; 0, the best one, is on it late or by luck
    page = 1 + rng.random((num, items.per_cell - 1)).argsort(1)[:, : BESIDE + 1]
    has_best = (is_late | (rng.random(num) < 0.1)) & ~is_advert
    page[has_best, 0] = 0
    item = items.of_cell(cell, page[:, 0])
    beside = items.of_cell(cell[:, None], page[:, 1:])
    new = items.of_cell(cell, items.per_cell + rng.integers(items.num_new, size=num))
    item = np.where(is_late & (rng.random(num) < 0.2), new, item)
    return {
        "user": np.arange(num),
        "item": item,
        "event": bought.astype(int),
        "device": device,
        "trust": np.where(is_advert, 0.05, 1.0),
        "beside": beside,
        "is_page": ~is_advert,
    }


def _mostly(value: Array, num: int, rng: np.random.Generator) -> Array:
    """``value``, and one time in ten any other."""
    return np.where(rng.random(len(value)) < 0.9, value, rng.integers(num, size=len(value)))


def _table(step: dict[str, Array], moment: Array, order: Array) -> pl.DataFrame:
    """The events as the shop writes them down."""
    beside = pl.Series("beside", order[step["beside"]]).cast(pl.List(pl.Int64))
    return pl.DataFrame(
        {
            "user": _names("u", step["user"]),
            "item": order[step["item"]],
            "time": START + (moment * DAYS * 86_400).astype(np.int64),
            "event": np.array(["view", "purchase"])[step["event"]],
            "device": np.array(["phone", "desk"])[step["device"]],
            "trust": step["trust"],
        }
    ).with_columns(pl.when(pl.Series(step["is_page"])).then(beside).alias("beside"))


def _names(prefix: str, numbers: Array) -> pl.Series:
    return pl.select(pl.lit(prefix) + pl.Series(numbers).cast(pl.String)).to_series()


def main() -> None:
    """Write a shop as the command line says."""
    parser = argparse.ArgumentParser(description="Make up a shop.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_shop(given.folder, given.events, given.seed)
    print(f"{given.folder}: clicks.parquet, users.csv, items.parquet, text.npy")


if __name__ == "__main__":
    main()
