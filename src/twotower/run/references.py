"""Test metrics of two rankings to compare with: popularity, and the best possible one."""

import pytorch_lightning as pl

from twotower.data.datamodule import RetrievalDataModule
from twotower.models.oracle import Oracle
from twotower.models.popularity import Popularity
from twotower.run.build import Config, build_metrics
from twotower.training.task import RetrievalTask
from twotower.types import Model


def popularity_metrics(
    config: Config, data: RetrievalDataModule, trainer: pl.Trainer
) -> dict[str, float]:
    """Metrics of ranking by the number of training interactions; logged as ``popularity/…``."""
    model = Popularity(data.schema).to(trainer.strategy.root_device)
    model.fit(data.train_interactions())
    return _test(model, "popularity", config, data, trainer)


def oracle_metrics(
    config: Config, data: RetrievalDataModule, trainer: pl.Trainer
) -> dict[str, float]:
    """Metrics of the best possible ranking of synthetic data; logged as ``oracle/…``.

    No user takes an item twice, so seen items are hidden, whatever ``data.mask_seen`` is: otherwise
    they would rank above the targets.
    """
    mask_seen, data.mask_seen = data.mask_seen, True
    try:
        return _test(Oracle(), "oracle", config, data, trainer)
    finally:
        data.mask_seen = mask_seen


def _test(
    model: Model, name: str, config: Config, data: RetrievalDataModule, trainer: pl.Trainer
) -> dict[str, float]:
    metrics = build_metrics(config, data)
    task = RetrievalTask(model, None, None, metrics, data.group_names, None, test_name=name)
    task.keeps_ranks = False
    trainer.test(task, data, verbose=False)
    return task.results[name]
