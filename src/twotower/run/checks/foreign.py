"""Types of the arguments of Lightning's and torch's constructors.

Their own annotations also allow values that end in a traceback, or do nothing useful. An argument
that is not listed is refused: it makes no sense here, or the project gives it.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from twotower.run.checks.signatures import Part, Words


def _refuse_true(value: bool) -> bool:
    if value:
        raise ValueError("false")
    return value


Off = Annotated[bool, AfterValidator(_refuse_true)]  # Literal[False] would take 0 too
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Nonnegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
FileName = Annotated[str, Field(pattern=r"^[^/\\]+$")]
Endless = Literal[-1]
Direction = Literal["min", "max"]

Clock = Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$")]
Unit = Literal["weeks", "days", "hours", "minutes", "seconds"]
Time = Annotated[
    Clock | Annotated[dict[Unit, Nonnegative], Field(min_length=1)],
    Words("a time, '00:12:00:00' (days, hours, minutes, seconds) or {hours: 12}"),
]
Limit = Annotated[
    Share | Count | None,
    Words("a number of batches, or a share of them above 0.0 and up to 1.0"),
]
Interval = Annotated[
    Share | Count | Time | None,
    Words("a number of batches, a share of an epoch above 0.0 and up to 1.0, or a time"),
]
Indices = Annotated[list[Whole], Field(min_length=1)]
DeviceText = Annotated[str, Field(pattern=r"^(auto|-1|\d[\d, ]*)$")]
Devices = Annotated[
    Count | Endless | Indices | DeviceText,
    Words("a number of devices, a list of their indices, auto, or -1 for all"),
]
Precision = Literal[
    "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "transformer-engine",
    "transformer-engine-float16", "64", "32", "16", "bf16", 64, 32, 16, None,
]  # fmt: skip

TRAINER: dict[str, Any] = {
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
    "strategy": Text | Part,
    "devices": Devices,
    "num_nodes": Count,
    "precision": Precision,
    "fast_dev_run": bool | Count,
    "max_epochs": Count | Endless | None,
    "min_epochs": Whole | None,
    "max_steps": Count | Endless,
    "min_steps": Whole | None,
    "max_time": Time | None,
    "limit_train_batches": Limit,
    "limit_val_batches": Limit,
    "limit_test_batches": Limit,
    "limit_predict_batches": Limit,
    "val_check_interval": Interval,
    "check_val_every_n_epoch": Count | None,
    "num_sanity_val_steps": Whole | Endless | None,
    "log_every_n_steps": Whole | None,
    "enable_checkpointing": Literal[True, None],
    "enable_progress_bar": bool | None,
    "enable_model_summary": bool | None,
    "accumulate_grad_batches": Count,
    "gradient_clip_val": Nonnegative | None,
    "gradient_clip_algorithm": Literal["norm", "value", None],
    "deterministic": bool | Literal["warn"] | None,
    "benchmark": bool | None,
    "inference_mode": bool,
    "use_distributed_sampler": Literal[False],  # the loaders shard by themselves
    "profiler": Literal["simple", "advanced", "pytorch"] | Part | None,
    "detect_anomaly": bool,
    "plugins": Part | list[Part] | None,
    "sync_batchnorm": bool,
    "reload_dataloaders_every_n_epochs": Whole,
    "default_root_dir": Text | None,
    "enable_autolog_hparams": bool,
    "model_registry": Text | None,
}
MODEL_CHECKPOINT: dict[str, Any] = {
    "dirpath": Text,
    "filename": FileName,
    "monitor": Text,
    "verbose": bool,
    "save_last": bool | Literal["link"] | None,
    "save_top_k": Count | Endless,
    "save_on_exception": bool,
    "save_weights_only": bool,
    "mode": Direction,
    "auto_insert_metric_name": bool,
    "every_n_train_steps": Count | None,
    "train_time_interval": Part | None,
    "every_n_epochs": Count | None,
    "save_on_train_epoch_end": bool | None,
    "enable_version_counter": bool,
}
EARLY_STOPPING: dict[str, Any] = {
    "monitor": Text,
    "min_delta": Nonnegative,
    "patience": Count,
    "verbose": bool,
    "mode": Direction,
    "strict": bool,
    "check_finite": bool,
    "stopping_threshold": float | None,
    "divergence_threshold": float | None,
    "check_on_train_epoch_end": bool | None,
    "log_rank_zero_only": bool,
}
ADAM: dict[str, Any] = {
    "lr": Nonnegative,
    "betas": Annotated[list[Decay], Field(min_length=2, max_length=2)],
    "eps": Positive,
    "weight_decay": Nonnegative,
    "amsgrad": bool,
    "foreach": bool | None,
    "maximize": bool,
    "capturable": Literal[False],  # for CUDA graphs of whole steps, which are not recorded here
    "differentiable": Off,  # nothing here differentiates through a step
    "fused": bool | None,
}
SGD: dict[str, Any] = {
    **{
        name: ADAM[name]
        for name in ("lr", "weight_decay", "foreach", "maximize", "differentiable", "fused")
    },
    "momentum": Decay,
    "dampening": Nonnegative,
    "nesterov": bool,
}
ADAGRAD: dict[str, Any] = {
    **{
        name: ADAM[name]
        for name in ("lr", "weight_decay", "eps", "foreach", "maximize", "differentiable", "fused")
    },
    "lr_decay": Nonnegative,
    "initial_accumulator_value": Nonnegative,
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "pytorch_lightning.Trainer": TRAINER,
    "pytorch_lightning.callbacks.ModelCheckpoint": MODEL_CHECKPOINT,
    "pytorch_lightning.callbacks.EarlyStopping": EARLY_STOPPING,
    "twotower.training.callbacks.EarlyStopping": EARLY_STOPPING,
    "pytorch_lightning.callbacks.RichProgressBar": {
        "refresh_rate": Whole,
        "leave": bool,
        "theme": Part,
        "console_kwargs": dict[str, Any] | None,
    },
    "pytorch_lightning.callbacks.TQDMProgressBar": {
        "refresh_rate": Whole,
        "process_position": Whole,
        "leave": bool,
    },
    "pytorch_lightning.loggers.TensorBoardLogger": {
        "save_dir": Text,
        "name": str | None,
        "version": int | str | None,
        "log_graph": Literal[False],  # the model has no example input
        "default_hp_metric": bool,
        "prefix": str,
        "sub_dir": Text | None,
        "purge_step": Whole | None,
        "max_queue": Count,
        "flush_secs": Count,
        "filename_suffix": str,
    },
    "torch.optim.Adam": {**ADAM, "decoupled_weight_decay": bool},
    "torch.optim.AdamW": ADAM,
    "torch.optim.SGD": SGD,
    "torch.optim.Adagrad": ADAGRAD,
}
