"""Writes an export: whole or not at all, and over nothing but an export."""

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import torch
from torch import Tensor

from twotower import locks
from twotower.data.datamodule import RetrievalDataModule
from twotower.errors import UserError
from twotower.export import manifest, parity, tables
from twotower.export.curve import draw_curve
from twotower.export.index import Flat, Index
from twotower.export.readme import as_readme
from twotower.export.towers import (
    OnnxTower,
    Tower,
    as_inputs,
    fix_cold_rows,
    inputs_of,
    write_tower,
)
from twotower.files import recover_folder, whole_folder
from twotower.run import results
from twotower.run.run_folder import RunFolder
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
    """Refuse what must not be replaced, before anything is computed.

    Raises:
        UserError: if something is there that is no export or more than one, or an export without ``force``.
    """
    if folder.is_symlink():
        raise UserError(f"output={folder} is a link: name the folder itself")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / manifest.FILE).is_file():
        raise UserError(f"output={folder} is there and is no export: name another folder")
    if not force:
        raise UserError(
            f"{folder} is exported already: set force=true to replace it, or output= to another folder"
        )
    manifest.refuse_others(folder)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of an export's place, and put right what a killed export has left there.

    The system frees the lock when its holder dies.

    Raises:
        UserError: if another process holds it.
    """
    if folder.name in ("", ".."):
        raise UserError(f"output={folder}: name a folder to make")
    path = folder.parent / ".locks" / folder.name
    with locks.if_free(path) as is_free:
        if not is_free:
            raise UserError(
                f"{folder} is being exported by another process: wait for its end, or set output=; {locks.holder(path)}"
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
) -> dict[str, Any]:
    """Write a whole export, or none.

    Args:
        folder: its place, whose lock the caller holds; an export that is there is replaced.
        about: what the manifest says of the run.
        model: in evaluation mode, on the CPU; its cold rows are written into its tables.
        data: its data module.
        index: one of ``twotower.export.index``.
        user_vectors: write those too?
        measure: what to compare on.
        progress: told what is done now.

    Returns:
        The manifest.

    Raises:
        UserError: if a tower cannot be exported well enough, or the index cannot be built from these items.
    """
    with whole_folder(folder) as partial:
        progress("item vectors")
        items = tables.encode_items(model, data)
        tables.write_items(data, items, partial)
        sample = parity.take_sample(model, data, items, measure.num_users, measure.k, measure.seed)
        if user_vectors:
            progress("user vectors")
            tables.write_user_vectors(data, tables.encode_users(model, data), partial)
        progress("towers")
        towers = _write_towers(model, sample.features, data, partial)
        progress("users and vocabularies")
        tables.write_users(
            data, [node.name for node in towers["user"].session.get_inputs()], partial
        )
        numeric = tables.write_vocabularies(data, partial)
        progress(f"index {index.name}")
        built = index.build(items.numpy())
        faiss.write_index(built, str(partial / "index.faiss"))
        progress("comparing")
        schema = {
            f"{side}_tower": towers[side].describe(getattr(data.schema, side)) for side in towers
        }
        record = {
            **about,
            "schema": schema,
            "numeric": numeric,
            "index": _about_index(index, built),
            "parity": _compare(towers, items, data, sample, index, built, measure),
            "versions": _versions(),
        }
        if index.curve:
            draw_curve(record["parity"], record["index"], partial / "recall_latency.png")
        names = [path.name + "/" * path.is_dir() for path in partial.iterdir()]
        (partial / "README.md").write_text(as_readme(record, [*names, manifest.FILE]))
        manifest.write(partial, record)
        record = manifest.check(partial)
        check_target(folder, force=True)  # nothing else may have come there since
    return record


def _write_towers(
    model: Model, user_features: dict[str, Tensor], data: RetrievalDataModule, folder: Path
) -> dict[str, OnnxTower]:
    fix_cold_rows(model)
    features = {"user": user_features, "item": as_inputs(next(data.corpus(tables.CPU)))}
    written = {}
    for side in ("user", "item"):
        tower = Tower(model, side)
        few = {name: features[side][name][:2] for name in inputs_of(tower, features[side])}
        write_tower(tower, few, folder)
        written[side] = OnnxTower(folder / f"{side}_tower.onnx")
    return written


def _compare(
    towers: dict[str, OnnxTower],
    items: Tensor,
    data: RetrievalDataModule,
    sample: parity.Sample,
    index: Index,
    built: faiss.Index,
    measure: Measure,
) -> dict[str, Any]:
    corpus = [as_inputs(chunk) for chunk in data.corpus(tables.CPU)]
    item_features = {name: torch.cat([chunk[name] for chunk in corpus]) for name in corpus[0]}
    record: dict[str, Any] = {"users": len(sample.seen), "k": measure.k}
    record["user_tower"] = parity.tower_difference(
        towers["user"], sample.features, sample.vector, measure.tolerance
    )
    record["item_tower"] = parity.tower_difference(
        towers["item"], item_features, items, measure.tolerance
    )
    compared = (towers["user"](sample.features), sample, measure.k)
    record["exact_hit_rate"] = sample.hit_rate
    record["index"] = parity.measure_index(built, *compared)
    exact = built if isinstance(index, Flat) else Flat().build(items.numpy())
    record["flat"] = record["index"] if exact is built else parity.measure_index(exact, *compared)
    record["curve"] = parity.measure_curve(built, index.parameter, index.curve, *compared)
    return record


def _about_index(index: Index, built: faiss.Index) -> dict[str, Any]:
    settings = {name: value for name, value in vars(index).items() if name != "curve"}
    return {
        "type": index.name,
        "score": "inner product",
        "settings": settings,
        "parameter": index.parameter,
        "items": built.ntotal,
        "dim": built.d,
    }


def _versions() -> dict[str, str]:
    return {
        **results.versions(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }


def run_metrics(ckpt_path: Path) -> dict[str, float] | None:
    """Test metrics of the run that a checkpoint is the chosen one of, else None."""
    folder = RunFolder.of(ckpt_path)
    is_chosen = ckpt_path.name == folder.best.name or not folder.best.exists()
    return folder.read_record().get("test") if is_chosen else None
