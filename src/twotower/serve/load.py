"""Loads a trained model with its data from a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning.utilities.seed import isolate_rng

from twotower.run.build import rebuild
from twotower.run.checkpoint.checkpoints import load_checkpoint, own_config
from twotower.run.conf import CONF
from twotower.run.environment import read_env_file
from twotower.serve.index import open_index
from twotower.serve.retriever import Retriever


def load(
    path: str | Path,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    trusted: Sequence[str] | None = None,
    export: str | Path | None = None,
) -> Retriever:
    """Rebuild a trained model from its checkpoint alone.

    Args:
        path: a checkpoint, or a run folder.
        data_dir: raw files; None: as the scripts find them (``TWOTOWER_DATA_DIR``, ``.env``).
        cache_dir: prepared data, found likewise.
        trusted: own packages that it may name, ``["mylab."]``; None: ``TWOTOWER_TRUSTED``.
        export: of this checkpoint: users' lists come from its index; None: from all item vectors.

    Raises:
        UserError: for a file that is not a checkpoint of this project, and for other data than it
            was trained on.
    """
    read_env_file()
    checkpoint = load_checkpoint(path, trusted=trusted)
    usual: Any = OmegaConf.load(CONF / "paths.yaml").paths
    chosen = {"data_dir": data_dir, "cache_dir": cache_dir}
    paths = {name: str(path or usual[name]) for name, path in chosen.items()}
    return from_checkpoint(own_config(checkpoint["twotower"], paths), checkpoint, export)


def from_checkpoint(
    config: dict[str, Any], checkpoint: dict[str, Any], export: str | Path | None = None
) -> Retriever:
    """A retriever of a checkpoint that is read already; random generators keep their state.

    Args:
        config: the checkpoint's, with the paths to use.
        checkpoint: see :func:`twotower.run.checkpoint.checkpoints.load_checkpoint`.
        export: see :func:`load`.
    """
    with isolate_rng():
        data, task = rebuild(config, checkpoint)
    model = Retriever(data, task.model, checkpoint["twotower"])
    if export is not None:
        model.index = open_index(Path(export), data, model.model, model.items.raw)
    return model
