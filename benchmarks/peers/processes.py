"""Two-tower models of other projects, each in its own process and environment."""

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
    """Start the peers and yield functions that train ``steps`` steps and return seconds per step.

    A peer has embeddings of ids only, hidden layers and an in-batch softmax, with the widths and
    the batch size of the config. All peers train on the same pairs.

    Args:
        pythons: path of the Python of each peer's environment; peers without one are left out.
        data: the data module, after ``setup``.
        config: as composed from ``train.yaml``.
        steps: number of steps per turn.

    Raises:
        UserError: if the config has settings that peers do not implement, or a peer fails.
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
                "peers only have ids and an in-batch softmax: use loss/task=in_batch_softmax "
                "data.history_length=0 model.user_features=[user_id] model.item_features=[item_id]"
            )
    present = {name: python for name, python in pythons.items() if Path(python).exists()}
    for name in pythons.keys() - present.keys():
        PlainConsole(stderr=True).print(
            f"{name} is left out: {pythons[name]} does not exist "
            "(docs/performance.md has the commands to install it)"
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
    """Write the shuffled training pairs and the settings; return the path of the settings."""
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
            cwd=settings.parent,  # some peers write logs to the working folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def __enter__(self) -> "_Peer":
        self()  # the first turn compiles
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
        lines = self.errors.read().strip().splitlines() or ["no message"]
        raise UserError(
            f"the peer {self.name} has failed: {lines[-1]}; "
            f"mend its environment, or leave it out with ~peers.{self.name}"
        )

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.communicate()
        self.errors.close()
