"""Types of the settings at the root of all commands' configs."""

from typing import Annotated, Any, Literal

from pydantic import Field

from twotower.run.checks.foreign import Count, Share, Text, Whole
from twotower.run.checks.signatures import Part

Folder = Literal["data_dir", "cache_dir", "output_dir", "run_dir"]
Parity = Literal["num_users", "k", "seed", "tolerance"]  # of an export's comparison
PARTS = ("data", "negatives", "model", "loss", "optimizer", "scheduler", "trainer", "index")
COLLECTIONS = ("callbacks", "metric", "metrics", "indexes")
WORDS = ("benchmark", "compare", "device")
WORDS_OR_NONE = (
    "ckpt_path",
    "output",
    "ranks",
    "export",
    "check",
    "baseline",
    "quoted",
    "keep",
    "update",
    "block",
    "searched",
)
COUNTS_OR_NONE = ("budget", "trials_at_once")
COUNTS = (
    *("k", "num_items", "rounds", "steps", "users", "dim", "num_queries", "processes", "seeds"),
)
FLAGS = ("dry", "test", "force", "user_vectors", "compiled", "kernels")

ROOTS: dict[str, Any] = {
    **dict.fromkeys(PARTS, Part),
    **dict.fromkeys(COLLECTIONS, dict[str, Part | None]),
    **dict.fromkeys(WORDS, Text),
    **dict.fromkeys(WORDS_OR_NONE, Text | None),
    **dict.fromkeys(COUNTS, Count),
    **dict.fromkeys(COUNTS_OR_NONE, Count | None),
    **dict.fromkeys(FLAGS, bool),
    "logger": Part | Annotated[dict[str, Any], Field(max_length=0)] | None,
    "paths": dict[Folder, Text],
    "parity": dict[Parity, Whole | Share],
    "seed": Annotated[int, Field(ge=0, le=2**32 - 1)],
    "search": dict[str, Any],  # settings and their distributions, see sweep/space.py
    "sampler": Literal["tpe", "random", "grid"],
    "pruner": Literal["successive_halving", "hyperband", "none"],
    "trusted": str | list[str] | None,  # packages, see trusted_packages
    "split": Literal["val", "test"],
    "clicks": Whole | None,
    "shown": Whole | None,
    "user_id": Any,
    "item_id": Any,
    "history": Any,
    "context": dict[str, Any] | None,
    "where": Text | list[Text] | None,
    "seen": bool | None,
    "format": Literal["table", "json"],
    "runs": Text | list[Text],
    "columns": list[Text],
    "ignore": list[Text],
    "level": Annotated[float, Field(ge=0.5, le=0.9999)],
    "control": Text | None,
    "margin": Annotated[float, Field(ge=0.0001, le=0.5)],
    "resamples": Annotated[int, Field(ge=100)],
    "peers": dict[str, Text],
    "sizes": list[Count],
    "engines": list[Literal["polars", "duckdb"]],
    "num_runs": list[Count] | None,
    "record": bool | None,
    "shardings": list[Text],
    "items": Count | None,
    "build_threads": Whole,
    "rows": Count | list[Count],
}
# settings inside of the nodes above
LEAVES: dict[str, Any] = {"parity.num_users": Count, "parity.k": Count}
