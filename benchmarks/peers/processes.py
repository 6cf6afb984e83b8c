"""Other projects' two-tower models, each in a process and an environment of its own, on the same pairs."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from twotower.errors import UserError
from twotower.wording import PlainConsole

SCRIPTS = Path(__file__).parent


@contextmanager
def started(
    pythons: dict[str, str], data: Any, config: DictConfig, steps: int
) -> Iterator[dict[str, Callable[[], float]]]:
    """Peers that wait for their turn: by name, a function that trains ``steps`` steps and returns seconds per step.

    A peer has embeddings of ids alone, hidden layers and an in-batch softmax, of the config's widths and batch size.

    Args:
        pythons: of each peer, the Python of its environment; a peer whose Python is absent is left out.
        data: the data module, set up.
        config: as ``train.yaml`` composes it.
        steps: per turn.

    Raises:
        UserError: if the config asks for what they do not do, and if a peer's process fails.
    """
    ids = {
        "model.user_features": ["user_id"],
        "model.item_features": ["item_id"],
        "data.history_length": 0,
    }
    ids["loss.task._target_"] = "twotower.losses.in_batch_softmax.InBatchSoftmax"
    for key, value in ids.items() if pythons else ():
        if OmegaConf.select(config, key) != value:
            raise UserError(
                "peers have ids alone and an in-batch softmax: use loss/task=in_batch_softmax data.history_length=0 "
                "model.user_features=[user_id] model.item_features=[item_id]"
            )
    present = {name: python for name, python in pythons.items() if Path(python).exists()}
    for name in pythons.keys() - present.keys():
        PlainConsole(stderr=True).print(
            f"{name} is left out: there is no {pythons[name]} (docs/performance.md says how to install it)"
        )
    with ExitStack() as opened:
        if present:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            settings = _write(folder, data, config, steps)
        yield {
            name: opened.enter_context(_Peer(name, python, settings))
            for name, python in present.items()
        }


def _write(folder: Path, data: Any, config: DictConfig, steps: int) -> Path:
    """The training pairs, shuffled, and the settings."""
    pairs = data.train_interactions()
    order = torch.randperm(len(pairs.user))
    np.savez(
        folder / "pairs.npz",
        user=pairs.user[order].int().numpy(),
        item=pairs.item[order].int().numpy(),
    )
    schema, model = data.schema, config.model
    settings = {
        "pairs": str(folder / "pairs.npz"),
        "num_users": schema.num_values("user_id"),
        "num_items": schema.num_values("item_id"),
        "batch_size": data.batch_size,
        "embedding_dim": model.embedding_dim,
        "hidden_dims": list(model.hidden_dims),
        "dim": model.dim,
        "lr": config.optimizer.lr,
        "threads": torch.get_num_threads(),
        "steps": steps,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder / "settings.json"


class _Peer:
    """A process that answers each line with the seconds per step of one turn."""

    def __init__(self, name: str, python: str, settings: Path) -> None:
        self.name = name
        self.errors = (settings.parent / f"{name}.err").open("w+")
        command = [str(Path(python).absolute()), str(SCRIPTS / f"with_{name}.py"), str(settings)]
        self.process = subprocess.Popen(
            command,
            cwd=settings.parent,  # some write logs where they stand
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def __enter__(self) -> "_Peer":
        self()  # a first turn compiles
        return self

    def __call__(self) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write("run\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith("seconds "):
                    return float(line.split()[1])
        except BrokenPipeError:
            pass
        self.errors.seek(0)
        last = (
            [line for line in self.errors.read().splitlines() if line.strip()]
            or ["it said nothing"]
        )[-1]
        raise UserError(
            f"the peer {self.name} has failed: {last}; mend its environment, or leave it out with ~peers.{self.name}"
        )

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.communicate()
        self.errors.close()
