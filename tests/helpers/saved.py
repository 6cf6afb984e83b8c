"""A tiny run and its checkpoint, made in this process, for tests of damaged checkpoints."""

import copy
from pathlib import Path
from typing import Any

import torch

from tests.helpers.composition import compose_train
from twotower.run import build, settings
from twotower.run import train as run
from twotower.run.about import describe
from twotower.run.checkpoint import saved_config
from twotower.run.checkpoint.checkpoints import load_checkpoint, own_config
from twotower.run.checkpoint.file import naming

SMALL = (
    "model=two_tower",
    "data.reader.num_users=40",
    "data.reader.num_items=30",
    "data.reader.interactions_per_user=8",
    "data.k_core=0",
    "data.batch_size=64",
    "model.hidden_dims=[8]",
    "model.dim=4",
    "model.embedding_dim=4",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.diagnostics.plots=false",
    "logger=none",
)
CHOICES = {"model": "two_tower", "data": "synthetic"}


class Saved:
    """A run that trained for one epoch.

    Attributes:
        folder: of the run, of its data and of what a test writes.
        path: of its last checkpoint.
        trainer: that trained it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "checkpoints" / "last.ckpt"
        config = compose_train(*SMALL, f"paths.run_dir={folder}", *self.paths("paths.{}={}"))
        self.trainer = self._fit(*saved_config.resolved(config), None)

    def paths(self, form: str) -> list[str]:
        return [form.format(name, self.folder / name) for name in ("data_dir", "cache_dir")]

    def good(self) -> dict[str, Any]:
        return torch.load(self.path, weights_only=True)

    def write(self, checkpoint: Any) -> Path:
        path = self.folder / "crafted.ckpt"
        torch.save(checkpoint, path)
        return path

    def config(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        paths = {name: str(self.folder / name) for name in ("data_dir", "cache_dir")}
        return own_config(checkpoint["twotower"], paths)

    def rebuild(self, path: Path) -> Any:
        """Build data and model from a checkpoint as evaluate, recommend, export and load do."""
        checkpoint = load_checkpoint(path)
        return build.rebuild(self.config(checkpoint), checkpoint)[1]

    def resume(self, path: Path, **trainer: Any) -> Any:
        """Train on from a checkpoint."""
        info = load_checkpoint(path)["twotower"]
        composed = compose_train(
            *SMALL,
            "trainer.max_epochs=2",
            f"paths.run_dir={self.folder}",
            *self.paths("paths.{}={}"),
        )
        today, repeats = saved_config.resolved(composed)
        saved = info.config
        plain = {**today, **{root: saved[root] for root in settings.FIXED if root in saved}}
        plain["data"] |= {name: today["data"][name] for name in settings.PLACES}
        plain["trainer"] |= trainer
        return self._fit(plain, repeats, str(path))

    def _fit(self, plain: dict[str, Any], repeats: list[str], ckpt_path: str | None) -> Any:
        info = describe(plain, repeats, CHOICES, list(SMALL))
        build.seed_everything(plain["seed"])
        trainer = build.build_part(plain, "trainer", logger=False, callbacks=run._callbacks(plain))
        with naming(ckpt_path):
            data, task = build.build(plain, info, trainer)
        trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
        return trainer


def changed(good, path, value):
    """A copy with another value at ``path``; without it for ``...``."""
    checkpoint = copy.deepcopy(good)
    node = checkpoint
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return checkpoint
