"""The two-tower model of keras-rs on JAX, as in its retrieval examples.

``benchmark=peers`` runs it with the Python of another environment: ``python with_keras_rs.py
settings.json`` prints the seconds per step of one turn for each line of standard input.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras
import keras_rs
import numpy as np


class TwoTower(keras.Model):
    """Embeddings of ids, hidden layers, scores of all pairs in a batch."""

    def __init__(self, settings: dict) -> None:
        super().__init__()
        self.user, self.item = (
            self.tower(settings, settings[f"num_{side}s"]) for side in ("user", "item")
        )
        self.without_accidental_hits = keras_rs.layers.RemoveAccidentalHits()
        self.cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True)

    @staticmethod
    def tower(settings: dict, num_values: int) -> keras.Sequential:
        hidden = [keras.layers.Dense(width, activation="relu") for width in settings["hidden_dims"]]
        return keras.Sequential(
            [
                keras.layers.Embedding(num_values, settings["embedding_dim"]),
                *hidden,
                keras.layers.Dense(settings["dim"]),
            ]
        )

    def call(self, pairs: dict) -> tuple:
        return self.user(pairs["user"]), self.item(pairs["item"])

    def compute_loss(
        self, x: dict, y: object, y_pred: tuple, sample_weight: object = None, training: bool = True
    ) -> object:
        user, item = y_pred
        scores = keras.ops.matmul(user, keras.ops.transpose(item))
        labels = keras.ops.eye(keras.ops.shape(scores)[0])
        return self.cross_entropy(labels, self.without_accidental_hits(scores, labels, x["item"]))


settings = json.loads(Path(sys.argv[1]).read_text())
pairs = np.load(settings["pairs"])
size, num = settings["batch_size"], settings["batch_size"] * settings["steps"]
model = TwoTower(settings)
model.compile(optimizer=keras.optimizers.Adam(settings["lr"]))
for turn, _ in enumerate(sys.stdin):
    rows = np.arange(turn * num, (turn + 1) * num) % len(pairs["user"])
    user, item = pairs["user"][rows], pairs["item"][rows]
    model.fit(
        {"user": user[:size], "item": item[:size]}, batch_size=size, verbose=0
    )  # compiles in the first turn
    times = [time.perf_counter()]
    for end in (size, len(user)):
        model.fit({"user": user[:end], "item": item[:end]}, batch_size=size, verbose=0)
        times.append(time.perf_counter())
    one, all_ = times[1] - times[0], times[2] - times[1]
    # the difference leaves out the time to start a fit
    print("seconds", (all_ - one) / (settings["steps"] - 1), flush=True)
