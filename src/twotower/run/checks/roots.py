"""Nodes and settings at the root of the commands' configs, with the types of their values."""

from typing import Annotated, Any, Literal

from pydantic import Field

from twotower.run.checks.foreign import Count, Text, Whole
from twotower.run.checks.signatures import Part

COLLECTIONS = (
    "callbacks",
    "metric",
    "metrics",
    "indexes",
)  # roots whose every entry is a part, or null
ROOTS: dict[str, Any] = {  # nodes and settings at the root, of all commands
    **dict.fromkeys(("data", "negatives", "model", "loss", "optimizer", "scheduler"), Part),
    **dict.fromkeys(("trainer", "index"), Part),
    **dict.fromkeys(COLLECTIONS, dict[str, Any]),
    "logger": Part | Annotated[dict[str, Any], Field(max_length=0)] | None,
    "paths": dict[Literal["data_dir", "cache_dir", "output_dir", "run_dir"], Any],
    "benchmark": Text,
    "seed": Annotated[int, Field(ge=0, le=2**32 - 1)],
    "ckpt_path": Text | None,
    "trusted": str | list[str] | None,  # packages, see trusted_packages
    "dry": bool,
    "force": bool,  # prepare, export
    "output": Text | None,
    "split": Literal["val", "test"],  # evaluate
    "clicks": Whole | None,
    "shown": Whole | None,
    "user_id": Any,  # recommend
    "item_id": Any,
    "history": Any,
    "k": Count,
    "seen": bool | None,
    "format": Literal["table", "json"],
    "user_vectors": bool,  # export
    "check": Text | None,
    "parity": dict[Literal["num_users", "k", "seed", "tolerance"], Any],
    "runs": Text | list[Text],  # report
    "compare": Text,
    "columns": list[Text],
    "baseline": Text | None,
    "ignore": list[Text],
    "level": Annotated[float, Field(ge=0.5, le=0.9999)],
    "resamples": Annotated[int, Field(ge=100)],
    "quoted": Text | None,
    "update": Text | None,
    "block": Text | None,
    "num_items": Count,
    "rounds": Count,  # benchmarks
    "steps": Count,
    "compiled": bool,
    "peers": dict[str, Text],
    "sizes": list[Count],
    "items": Count | None,
    "users": Count,
    "dim": Count,
    "device": Text,
    "num_queries": Count,
    "build_threads": Whole,
    "rows": Count | list[Count],
    "processes": Count,
}

NODES: dict[str, dict[str, Any]] = {  # of plain settings
    "paths": {"data_dir": Text, "cache_dir": Text, "output_dir": Text, "run_dir": Text},
    "parity": {
        "num_users": Count,
        "k": Count,
        "seed": Whole,
        "tolerance": Annotated[float, Field(ge=0)],
    },
}
TRAINING = (
    "data",
    "negatives",
    "model",
    "loss",
    "metric",
    "optimizer",
    "trainer",
    "callbacks",
    "paths",
    "seed",
    "ckpt_path",
)
