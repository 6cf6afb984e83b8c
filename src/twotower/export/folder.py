"""Writes an export as a whole or not at all, and replaces nothing but an export."""

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor

from twotower import locks
from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError
from twotower.export import manifest, tables
from twotower.export.curve import recall_curve
from twotower.export.in_file import InFile
from twotower.export.index import Index, Searchable, tune
from twotower.export.parity import Sample, measure_index, take_sample, tower_difference
from twotower.export.readme import as_readme
from twotower.export.towers import Tower, as_inputs, fix_cold_rows, write_tower
from twotower.files import recover_folder, whole_folder
from twotower.layers.feature_embedding import reads_times
from twotower.plotting import save_figure
from twotower.retrieval.exact import encode_items, encode_users
from twotower.run import results
from twotower.types import Model

PACKAGES = ("onnx", "onnxruntime", "faiss-cpu", "safetensors")


class Measure(NamedTuple):
    """What the exported files are compared on.

    Attributes:
        num_users: test users.
        k: length of the lists.
        seed: of the choice of users.
        tolerance: of the ONNX towers, relative to a vector's largest entry.
    """

    num_users: int
    k: int
    seed: int
    tolerance: float


def check_target(folder: Path, force: bool) -> None:
    """Refuse a folder that must not be replaced, before anything is computed.

    Raises:
        UserError: for a file, a folder that is not an export, an export without ``force``, and an
            export with other files, which are named.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file: name a folder that is new, empty or an export")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    own = {*manifest.read(folder)["files"], manifest.FILE}
    if not force:
        raise UserError(
            f"{folder} is exported already: set force=true to replace it, or output= to another "
            "folder"
        )
    files = (path for path in folder.rglob("*") if not path.is_dir())
    others = sorted({path.relative_to(folder).as_posix() for path in files} - own)
    if others:
        raise UserError(
            f"{folder} holds files that are not of an export, and is not replaced: "
            f"{', '.join(others[:3])}: move them away, or set output= to another folder"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of an export's folder, and put right what a killed export has left there.

    Raises:
        UserError: if another process holds it.
    """
    path = folder.absolute().parent / ".locks" / folder.name
    with locks.if_free(path) as is_free:
        if not is_free:
            raise UserError(
                f"{folder} is being exported by another process: wait for its end, or set output= "
                f"to another folder; {locks.holder(path)}"
            )
        recover_folder(folder)
        yield


def write_export(
    folder: Path,
    about: dict[str, Any],
    model: Model,
    data: RetrievalDataModule,
    index: Index,
    user_vectors: bool,
    measure: Measure,
    progress: Callable[[str], None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write a whole export, or none.

    Args:
        folder: its lock is held by the caller; an export that is there is replaced.
        about: the run, for the manifest.
        model: in evaluation mode, on the CPU; its cold rows are written into its tables.
        data: its data module.
        index: one of ``twotower.export.index``.
        user_vectors: write them too?
        measure: what to compare on.
        progress: is given the name of each step.
        say: is given a line to keep on the screen: the memory that the index takes.

    Returns:
        The manifest.

    Raises:
        UserError: for an ONNX tower that differs too much, an index that these items do not allow,
            and a model that reads times.
    """
    if reads_times(model):
        raise UserError(
            "model.history.times=true: exported towers take no times: train with "
            "model.history.times=false"
        )
    first = next(iter(data.corpus(tables.CPU)))
    with torch.no_grad():
        dim = encode_items(model, {name: value[:1] for name, value in first.items()}).shape[1]
    plan = index.plan(data.schema.num_items, dim)
    say(plan)
    with whole_folder(folder) as partial:
        progress("item vectors")
        items = tables.write_items(model, data, partial)
        sample = take_sample(model, data, items, measure.num_users, measure.k, measure.seed)
        if user_vectors:
            progress("user vectors")
            tables.write_user_vectors(model, data, partial)
        progress("towers")
        fix_cold_rows(model)
        some = as_inputs(first)
        user_tower = write_tower(Tower(model, "user", sample.features), sample.features, partial)
        item_tower = write_tower(Tower(model, "item", some), some, partial)
        progress("users and vocabularies")
        tables.write_users(data, user_tower.input_names, partial)
        numeric = tables.write_vocabularies(data, partial)
        progress(f"index {index.name}")
        built = index.build(items.numpy())
        if isinstance(built, faiss.Index):
            faiss.write_index(built, str(partial / "index.faiss"))
        progress("comparing")
        tolerance = measure.tolerance
        blank = {name: torch.zeros_like(value[:1]) for name, value in sample.features.items()}
        with torch.no_grad():
            unknown = encode_users(model, blank)  # a new user without history
        differences = {
            "user_tower": max(
                tower_difference(user_tower, [(sample.features, sample.vector)], tolerance),
                tower_difference(user_tower, [(blank, unknown)], tolerance),
            ),
            "item_tower": tower_difference(item_tower, _item_chunks(data, items), tolerance),
        }
        vectors = user_tower(sample.features)
        record = {
            **about,
            "schema": {
                "user_tower": user_tower.describe(data.schema.user),
                "item_tower": item_tower.describe(data.schema.item),
            },
            "numeric": numeric,
            "context": list(data.schema.context),
            "index": _describe(index, built, plan),
            "parity": differences | _measure(index, built, items, vectors, sample, measure.k),
            "versions": _versions(),
        }
        _finish(partial, record)
        check_target(folder, force=True)  # other files may have come there meanwhile
        return manifest.check(partial)


def _item_chunks(
    data: RetrievalDataModule, items: Tensor
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """The item tower's inputs and the vectors for them, in chunks."""
    start = 0
    for chunk in data.corpus(tables.CPU):
        features = as_inputs(chunk)
        num = len(next(iter(features.values())))
        yield features, items[start : start + num]
        start += num


def _measure(
    index: Index, built: Searchable, items: Tensor, users: np.ndarray, sample: Sample, k: int
) -> dict[str, Any]:
    """Searches in the index as exported, in an exact one, and along the curve."""
    exported = measure_index(built, users, sample, k)
    exact = exported
    if index.name not in ("flat", "none"):
        exact = measure_index(InFile(items.numpy()), users, sample, k)
    curve = []
    for value in index.curve:
        tune(built, index.parameter, value)
        curve.append({index.parameter: value, **measure_index(built, users, sample, k)})
    return {
        "users": len(sample.seen),
        "k": k,
        "exact_hit_rate": sample.hit_rate,
        "index": exported,
        "flat": exact,
        "curve": curve,
    }


def _describe(index: Index, built: Searchable, plan: str) -> dict[str, Any]:
    return {
        "type": index.name,
        "plan": plan,
        "score": "inner product",
        "settings": {name: value for name, value in vars(index).items() if name != "curve"},
        "parameter": index.parameter,
        "items": built.ntotal,
        "dim": built.d,
    }


def _versions() -> dict[str, str]:
    own = {package: importlib.metadata.version(package) for package in PACKAGES}
    return results.versions() | own


def _finish(partial: Path, record: dict[str, Any]) -> None:
    """Write plot, README and manifest."""
    if record["parity"]["curve"]:
        figure = recall_curve(record["parity"], record["index"])
        save_figure(figure, partial / "recall_latency.png")
    names = [path.name + "/" * path.is_dir() for path in partial.iterdir()]
    (partial / "README.md").write_text(as_readme(record, [*names, manifest.FILE]))
    manifest.write(partial, record)
