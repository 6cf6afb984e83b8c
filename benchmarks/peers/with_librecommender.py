"""TwoTower of LibRecommender with its in-batch softmax and its trainer.

``benchmark=peers`` runs it with the Python of another environment: ``python with_librecommender.py
settings.json`` prints the seconds per step of one turn for each line of standard input.
"""

import json
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import pandas as pd
import tensorflow as tf
from libreco.algorithms import TwoTower
from libreco.data import DatasetPure

settings = json.loads(Path(sys.argv[1]).read_text())
threads = settings["threads"]
pairs = np.load(settings["pairs"])
num = settings["batch_size"] * settings["steps"]
frame = pd.DataFrame({"user": pairs["user"][:num], "item": pairs["item"][:num], "label": 1})
train, info = DatasetPure.build_trainset(frame)


def fit(epochs: int) -> float:
    """Seconds of a whole training, with building the model and the work after the last step."""
    tf.compat.v1.reset_default_graph()
    session = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads
    )
    model = TwoTower(
        "ranking",
        info,
        loss_type="softmax",
        embed_size=settings["embedding_dim"],
        hidden_units=[*settings["hidden_dims"], settings["dim"]],
        n_epochs=epochs,
        lr=settings["lr"],
        batch_size=settings["batch_size"],
        tf_sess_config=session,
        use_bn=False,
    )
    started = time.perf_counter()
    with redirect_stdout(sys.stderr):
        model.fit(train, neg_sampling=True, verbose=0, shuffle=True)
    return time.perf_counter() - started


for _ in sys.stdin:
    # the difference leaves out the time to build the model
    print("seconds", (fit(3) - fit(1)) / 2 / settings["steps"], flush=True)
