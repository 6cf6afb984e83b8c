"""The two-tower model of TensorFlow Recommenders, as in its tutorial.

``benchmark=peers`` runs it with the Python of another environment:
``python with_tensorflow_recommenders.py settings.json`` prints the seconds per step of one turn for
each line of standard input.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs


class TwoTower(tfrs.Model):
    """Embeddings of ids, hidden layers, the retrieval task."""

    def __init__(self, settings: dict) -> None:
        super().__init__()
        self.user, self.item = (
            self.tower(settings, settings[f"num_{side}s"]) for side in ("user", "item")
        )
        self.retrieval = tfrs.tasks.Retrieval(remove_accidental_hits=True)

    @staticmethod
    def tower(settings: dict, num_values: int) -> tf.keras.Sequential:
        hidden = [
            tf.keras.layers.Dense(width, activation="relu") for width in settings["hidden_dims"]
        ]
        return tf.keras.Sequential(
            [
                tf.keras.layers.Embedding(num_values, settings["embedding_dim"]),
                *hidden,
                tf.keras.layers.Dense(settings["dim"]),
            ]
        )

    def compute_loss(self, pairs: dict, training: bool = False) -> tf.Tensor:
        item = pairs["item"]
        return self.retrieval(
            self.user(pairs["user"]), self.item(item), candidate_ids=item, compute_metrics=False
        )


settings = json.loads(Path(sys.argv[1]).read_text())
tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
pairs = np.load(settings["pairs"])
size, num = settings["batch_size"], settings["batch_size"] * settings["steps"]
model = TwoTower(settings)
model.compile(optimizer=tf.keras.optimizers.Adam(settings["lr"]))
for turn, _ in enumerate(sys.stdin):
    rows = np.arange(turn * num, (turn + 1) * num) % len(pairs["user"])
    feed = (
        tf.data.Dataset.from_tensor_slices(
            {"user": pairs["user"][rows], "item": pairs["item"][rows]}
        )
        .batch(size)
        .cache()
    )
    for _ in feed:  # fills the cache
        pass
    model.fit(feed.take(1), verbose=0)  # compiles in the first turn
    times = [time.perf_counter()]
    for steps in (1, settings["steps"]):
        model.fit(feed.take(steps), verbose=0)
        times.append(time.perf_counter())
    one, all_ = times[1] - times[0], times[2] - times[1]
    # the difference leaves out the time to start a fit
    print("seconds", (all_ - one) / (settings["steps"] - 1), flush=True)
