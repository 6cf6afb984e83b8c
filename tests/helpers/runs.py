"""Settings of small runs, and their logs."""

import csv

SMALL = (
    "data.reader.num_users=150",
    "data.reader.num_items=80",
    "data.reader.interactions_per_user=10",
    "data.batch_size=64",
    "loss/task=bce",
    "trainer.max_epochs=3",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.diagnostics=null",
    "callbacks.last.every_n_steps=5",
    "trainer.log_every_n_steps=1",
)


def logged(script, run):
    with (script.folder / run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


WORLD = (
    "data.reader.num_users=700",
    "data.reader.num_items=200",
    "data.reader.num_clusters=12",
    "data.reader.interactions_per_user=20",
    "data.batch_size=64",
    "negatives.num=128",
    "trainer.max_epochs=8",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.diagnostics=null",
)
