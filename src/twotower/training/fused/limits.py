"""Which runs cannot be trained in one pass, or by recorded steps, and why."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    GradientAccumulationScheduler,
    ModelPruning,
    StochasticWeightAveraging,
)
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from twotower.data.datamodule import RetrievalDataModule
from twotower.data.mined_negatives import miners
from twotower.distributed.sharding import shard_of
from twotower.training.fused.whole_steps import needs_gradients
from twotower.training.task import RetrievalTask

PRECISIONS = ("32-true", "64-true")  # autocast does not reach linear layers under vmap
CHANGING = (  # between two epochs
    BaseFinetuning,
    GradientAccumulationScheduler,
    ModelPruning,
    StochasticWeightAveraging,
)


def why_not(
    task: RetrievalTask,
    data: RetrievalDataModule,
    optimizer: Optimizer | None,
    *,
    precision: str = "32-true",
    num_processes: int = 1,
    accumulate: int = 1,
    compiled: bool = False,
) -> str | None:
    """Why a run cannot be trained by :class:`~twotower.training.fused.engine.FusedRuns`.

    Args:
        task: of the run.
        data: of the run.
        optimizer: over the model's parameters.
        precision: ``trainer.precision``, as Lightning spells it out.
        num_processes: of the trainer.
        accumulate: ``trainer.accumulate_grad_batches``.
        compiled: whether ``torch.compile`` replaces the step.

    Returns:
        The setting and the reason in plain words, or None if the run can be.
    """
    model = task.model
    if hasattr(model, "fit"):
        return "the model is fitted in closed form"
    if num_processes > 1:
        return f"trainer.devices={num_processes}: several processes share each step"
    if accumulate > 1:
        return f"trainer.accumulate_grad_batches={accumulate}: an update is several steps"
    if precision not in PRECISIONS:
        return f"trainer.precision={precision}: only {', '.join(PRECISIONS)} are supported"
    if compiled:
        return "callbacks.speed.compile=true: the compiled step is that of one run"
    if data.shuffle_window is not None:
        return "data.shuffle_window: large tables stay on the host"
    if miners(data.negatives):
        return "negatives=mined: each run searches with its own model"
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return "model/history=gru: recurrent kernels take the weights of one model"
    if any(shard_of(parameter) is not None for parameter in model.parameters()):
        return "model.sharding=row: its lookups are exchanges between processes"
    return None if optimizer is None else _of_optimizer(optimizer)


def _of_optimizer(optimizer: Optimizer) -> str | None:
    kind = type(optimizer)
    if kind not in (Adam, AdamW):
        return f"optimizer={kind.__name__}: only Adam and AdamW are supported"
    if len(optimizer.param_groups) > 1:
        return "the optimizer has several groups of parameters"
    for name in ("amsgrad", "maximize", "differentiable"):
        if optimizer.param_groups[0][name]:
            return f"optimizer.{name}=true is not supported"
    return None


def why_not_recorded(device: torch.device) -> str | None:
    """Why steps on a device cannot be recorded, whatever is trained; None if they can be."""
    if device.type != "cuda":
        return f"recorded steps need an NVIDIA GPU, and the run is on {device.type}"
    return None


def why_not_here(trainer: pl.Trainer) -> str | None:
    """Why the steps of a training cannot be taken outside of Lightning's loop; None: they can."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if needs_gradients(callback):
            return f"{type(callback).__name__} works on the gradients of each step"
        if isinstance(callback, CHANGING):
            return f"{type(callback).__name__} changes how a run is trained while it is"
    if every := trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
        return f"trainer.reload_dataloaders_every_n_epochs={every}: another loader takes over"
    is_compiled = any(getattr(each, "compile", False) for each in trainer.callbacks)  # type: ignore[attr-defined]
    return why_not(
        trainer.lightning_module,  # type: ignore[arg-type]
        trainer.datamodule,  # type: ignore[attr-defined]
        trainer.optimizers[0],
        precision=str(trainer.precision),
        num_processes=trainer.world_size,
        accumulate=trainer.accumulate_grad_batches,
        compiled=is_compiled,
    )


def may_record(trainer: pl.Trainer) -> bool:
    """Is the training on a GPU, and does ``callbacks.speed.record`` not forbid recordings?"""
    settings = [getattr(callback, "record", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    return False not in settings and why_not_recorded(trainer.strategy.root_device) is None
