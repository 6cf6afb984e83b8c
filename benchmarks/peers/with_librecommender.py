"""LibRecommender's TwoTower with its in-batch softmax and its own trainer. Run by benchmark=peers with another Python.

python with_librecommender.py settings.json: answers each line of standard input with the seconds per step of one turn.
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
    """Seconds of a whole training, with what it builds before and computes after."""
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
    print(
        "seconds", (fit(3) - fit(1)) / 2 / settings["steps"], flush=True
    )  # so that building does not count
