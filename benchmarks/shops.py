"""Does a model learn anything from a small table? Made-up book shops with planted tastes.

Each customer likes two of twelve subjects, and some books of a subject are read more than others.
Ranking by the probabilities that the clicks are drawn from is the best possible ranking.
"""

import datetime as dt
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.table import Table

from twotower.errors import UserError
from twotower.files import read_json
from twotower.run.run_folder import RunFolder
from twotower.run.settings import key_of

TRAIN = Path(__file__).parents[1] / "src" / "train.py"
NUM_BOOKS = {2_000: 200, 5_000: 420, 50_000: 1_600}  # by number of clicks
CLICKS, SUBJECTS, DAYS = 11.6, 12, 60  # of a customer
COLUMNS = (
    "data=table",
    "data.reader.interactions=clicks.csv",
    "data.reader.items=books.csv",
    "data.reader.columns={user: customer, item: book, time: clicked_at}",
    "data.reader.item_columns={item: book, category: subject}",
)
OWN = ("benchmark", "sizes", "rounds", "output")  # settings of the benchmark, not of a run

Array = NDArray[Any]


def measure(config: DictConfig, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Test HR@10 of a model as the command line configures it, beside popularity and the truth.

    Args:
        config: not used: each run composes its own, in a process of its own.
        sizes: numbers of clicks.
        rounds: shops of each size, and seeds.
    """
    overrides = [text for text in HydraConfig.get().overrides.task if key_of(text) not in OWN]
    shops = []
    for clicks in sizes:
        for seed in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                truth = write_shop(Path(folder), clicks, seed)
                run = _train(Path(folder), seed, overrides)
            test, popularity = (run[part]["hit_rate@10"] for part in ("test", "popularity"))
            found = {"truth": truth, "popularity": popularity, "model": test}
            shops.append({"clicks": clicks, "seed": seed, **found, "seconds": run["wall_seconds"]})
            print(
                f"{clicks:,} clicks, seed {seed}: HR@10 {test:.3f}, truth {truth:.3f}", flush=True
            )
    return {"shops": shops}


def table(record: dict[str, Any]) -> Table:
    """Means over the shops of each size."""
    shown = Table(title=f"{record['model']}, test HR@10 on made-up shops")
    for name in ("clicks", "truth", "popularity", "model", "of truth", "x popular", "seconds"):
        shown.add_column(name, justify="right")
    for clicks in sorted({shop["clicks"] for shop in record["shops"]}):
        own = [shop for shop in record["shops"] if shop["clicks"] == clicks]
        truth, popularity, model, seconds = (
            np.mean([shop[key] for shop in own])
            for key in ("truth", "popularity", "model", "seconds")
        )
        spread = np.std([shop["model"] for shop in own], ddof=min(1, len(own) - 1))
        shares = (f"{model / truth:.0%}", f"{model / popularity:.1f}", f"{seconds:.0f}")
        means = (f"{truth:.3f}", f"{popularity:.3f}", f"{model:.3f}±{spread:.3f}")
        shown.add_row(f"{clicks:,}", *means, *shares)
    return shown


def write_shop(folder: Path, clicks: int, seed: int) -> float:
    """Write ``clicks.csv`` and ``books.csv``.

    Args:
        folder: of both files.
        clicks: about as many as there will be, one of :data:`NUM_BOOKS`.
        seed: of the shop.

    Returns:
        Test HR@10 of the best possible ranking of unseen books; the test is each last click.

    Raises:
        UserError: for another number of clicks.
    """
    if clicks not in NUM_BOOKS:
        raise UserError(f"sizes must be of {', '.join(map(str, NUM_BOOKS))}, got {clicks}")
    rng = np.random.default_rng(seed)
    subject, probability = _tastes(rng, round(clicks / CLICKS), NUM_BOOKS[clicks])
    lists = _histories(rng, clicks, probability)
    rows = [
        (f"c{customer:05d}", f"b{book:05d}", dt.datetime(2025, 1, 1) + dt.timedelta(seconds=second))
        for customer, (chosen, times) in enumerate(lists)
        for book, second in zip(chosen, times.tolist(), strict=True)
    ]
    frame = pl.DataFrame(rows, ["customer", "book", "clicked_at"], orient="row")
    date = pl.col("clicked_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    frame.sort("clicked_at").with_columns(date).write_csv(folder / "clicks.csv")
    books = {
        "book": [f"b{book:05d}" for book in range(len(subject))],
        "subject": [f"subject {number}" for number in subject],
        "price": np.round(rng.gamma(4, 4, len(subject)), 2),
    }
    pl.DataFrame(books).write_csv(folder / "books.csv")
    return float(np.mean([_hit(row, *own) for row, own in zip(probability, lists, strict=True)]))


def _tastes(rng: np.random.Generator, customers: int, books: int) -> tuple[Array, Array]:
    """Subjects ``(books,)``, and probabilities of a customer's click ``(customers, books)``."""
    subject = rng.integers(SUBJECTS, size=books)
    subject[:SUBJECTS] = range(SUBJECTS)  # none is empty
    weight = 1 / (rng.permutation(books) + 5.0) ** 0.7
    of_subject = np.bincount(subject, weight, SUBJECTS)
    share = of_subject / of_subject.sum()
    liked = np.array(
        [rng.choice(SUBJECTS, 2, replace=False, p=share) for _ in range(customers)]
    )  # (customers, 2)
    taste = np.tile(0.25 * share, (customers, 1))  # (customers, SUBJECTS)
    taste[np.arange(customers), liked[:, 0]] += 0.5
    taste[np.arange(customers), liked[:, 1]] += 0.25
    probability = taste[:, subject] * weight / of_subject[subject]
    return subject, probability / probability.sum(1, keepdims=True)


def _histories(
    rng: np.random.Generator, clicks: int, probability: Array
) -> list[tuple[list[int], Array]]:
    """Books of each customer, and the seconds at which they are clicked."""
    customers, books = probability.shape
    count = np.maximum(4, rng.poisson(clicks / customers, customers))
    lists = []
    for number, row in zip(count, probability, strict=True):
        chosen = rng.choice(books, min(number, books // 2), replace=False, p=row)
        start = rng.integers(0, 300 * 86_400)
        lists.append(
            (chosen.tolist(), start + np.sort(rng.integers(0, DAYS * 86_400, len(chosen))))
        )
    return lists


def _hit(score: Array, chosen: list[int], times: Array) -> bool:
    """Is the last book among the ten unseen ones with the highest probabilities?"""
    *seen, target = chosen
    unseen = np.delete(score, seen)
    return int((unseen > score[target]).sum()) < 10


def _train(folder: Path, seed: int, overrides: list[str]) -> dict[str, Any]:
    """The record of a run with the defaults, apart from ``overrides``.

    Raises:
        UserError: if the run fails.
    """
    places = [f"paths.{name}={folder}" for name in ("data_dir", "cache_dir", "output_dir")]
    run = RunFolder(folder / "run")
    command = [sys.executable, str(TRAIN), *COLUMNS, *places, f"seed={seed}", *overrides]
    silent = ["callbacks.progress=null", "callbacks.diagnostics=null", f"hydra.run.dir={run.path}"]
    done = subprocess.run([*command, *silent], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"a run of the benchmark failed: {done.stderr.strip()}")
    return dict(read_json(run.record))
