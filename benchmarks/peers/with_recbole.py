"""DSSM of RecBole with its trainer: a label for each pair, one negative per positive.

``benchmark=peers`` runs it with the Python of another environment: ``python with_recbole.py
settings.json`` prints the seconds per step of one turn for each line of standard input.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

settings = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(settings["threads"])
pairs = np.load(settings["pairs"])
size, num = settings["batch_size"], settings["batch_size"] * settings["steps"]
folder = Path(sys.argv[1]).parent / "recbole"
(folder / "pairs").mkdir(parents=True)
lines = (
    f"{user}\t{item}" for user, item in zip(pairs["user"][:num], pairs["item"][:num], strict=True)
)
(folder / "pairs" / "pairs.inter").write_text(
    "user_id:token\titem_id:token\n" + "\n".join(lines) + "\n"
)
config = Config(
    model="DSSM",
    dataset="pairs",
    config_dict={
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": settings["embedding_dim"],
        "mlp_hidden_size": [*settings["hidden_dims"], settings["dim"]],
        "dropout_prob": 0.0,
        "learning_rate": settings["lr"],
        "train_batch_size": 2 * size,  # it counts rows: a positive and its negative
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "eval_args": {
            "split": {"RS": [1, 0, 0]},
            "mode": "labeled",
            "order": "RO",
            "group_by": None,
        },
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    },
)
init_seed(0, True)
train, _, _ = data_preparation(config, create_dataset(config))
model = get_model(config["model"])(config, train._dataset)
trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
for turn, _ in enumerate(sys.stdin):
    started = time.perf_counter()
    trainer._train_epoch(train, turn, show_progress=False)
    print("seconds", (time.perf_counter() - started) / len(train), flush=True)
