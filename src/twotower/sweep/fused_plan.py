"""Which runs of a sweep are trained in one pass, and why the others are trained alone."""

import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from twotower.run.settings import FOLDER, Value, changes_result, is_within, leaves

# Runs of one pass may differ in these: the stacked step takes a number for each run.
SEEDS = ("seed", "data.seed")
OF_LOSSES = ("lambda1", "lambda2", "lambda3", "temperature")  # of this project's own classes
OF_ADAM = ("lr", "weight_decay", "betas", "eps")

THRESHOLDS = "callbacks.pruning.thresholds"  # a run that is ended early leaves the others

# These are the limits of training.fused.limits, which looks at the parts of a run.
SEVERAL_PROCESSES = "several processes share each step"
PRECISIONS = ("32-true", "32", "64-true", "64")
ALLOWED = {  # settings of runs that can be trained in one pass; unset is allowed, too
    "model.sharding": (("none",), SEVERAL_PROCESSES),
    "trainer.devices": (("1",), SEVERAL_PROCESSES),
    "trainer.num_nodes": (("1",), SEVERAL_PROCESSES),
    "trainer.strategy": (("auto",), SEVERAL_PROCESSES),
    "trainer.precision": (PRECISIONS, "only 32-true and 64-true are supported"),
    "trainer.accumulate_grad_batches": (("1",), "an update is several steps"),
    "trainer.reload_dataloaders_every_n_epochs": (("0",), "another loader takes over"),
    "data.shuffle_window": ((), "large tables stay on the host"),
    "callbacks.speed.compile": (("False",), "the compiled step is that of one run"),
    "optimizer.amsgrad": (("False",), "not supported"),
    "optimizer.maximize": (("False",), "not supported"),
    "optimizer.differentiable": (("False",), "not supported"),
    "optimizer._target_": (
        ("torch.optim.Adam", "torch.optim.AdamW"),
        "only Adam and AdamW are supported",
    ),
}
CLOSED_FORM = "fitted in closed form, without steps"
ALONE = {  # classes of runs that are trained alone
    "twotower.layers.history.GRU": "recurrent kernels take the weights of one model",
    "twotower.models.ials.IALS": CLOSED_FORM,
    "twotower.models.popularity.Popularity": CLOSED_FORM,
}
UNIQUE = "no other run of the sweep differs from it in {} alone".format(
    ", ".join((SEEDS[0], "lambda1-3", *OF_LOSSES[3:], *OF_ADAM))
)
OTHERS_DONE = "the other runs of its pass are done"
OF_THE_LOOP = ("trainer", "callbacks", "model.sharding")
ONE_AT_A_TIME = "one run at a time: hydra.launcher.max_runs, or the GPU's memory"

Settings = dict[str, Value]
Limit = Callable[[list[int]], int | None]


class Pass(NamedTuple):
    """Runs that are trained together, or one that is trained alone.

    Attributes:
        jobs: their places among the given configs.
        reason: why a run is trained alone; empty for several.
        num_runs: of several, with those that are done and left out of ``jobs``; else 0.
    """

    jobs: list[int]
    reason: str = ""
    num_runs: int = 0


def plan(configs: Sequence[DictConfig], limit: Limit) -> list[Pass]:
    """Divide runs into passes, in the order of each pass's first run.

    Runs are trained in one pass if all settings that change a result are equal but seeds and
    numbers that the stacked step takes for each run, see :func:`shape`.

    Args:
        configs: as they are composed.
        limit: the largest number of runs in one pass, given the places of runs that could be
            trained together; None: all of them.
    """
    passes = []
    groups: dict[Hashable, list[int]] = {}
    seeds: list[Value] = []
    for job, config in enumerate(configs):
        settings, reason = settings_of(config)
        seeds.append(settings.get("data.seed", settings.get("seed")))
        reason = reason or why_alone(settings)
        if reason:
            passes.append(Pass([job], reason))
        else:
            groups.setdefault(shape(settings), []).append(job)
    for jobs in groups.values():
        if len(jobs) == 1:
            passes.append(Pass(jobs, UNIQUE))
            continue
        max_runs = limit(jobs) or len(jobs)
        for part in split(jobs, seeds, max_runs):
            is_several = len(part) > 1
            passes.append(Pass(part, "", len(part)) if is_several else Pass(part, ONE_AT_A_TIME))
    return sorted(passes, key=lambda one: one.jobs[0])


def settings_of(config: DictConfig) -> tuple[Settings, str]:
    """The settings that runs of one pass have in common but for some, by dotted name.

    Those of trainer and callbacks without effect on a result are among them: all runs of a pass
    follow the same loop. Folders are not.

    Returns:
        Resolved values, without those that are null, and why they are not known yet, if so.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    found: Settings = {}
    for key, value in leaves("", plain):
        in_loop = is_within(key, OF_THE_LOOP) and not _is_folder(key)
        if value is None or not (changes_result(key) or in_loop):
            continue
        if isinstance(value, str) and "${" in value:
            try:
                value = _resolved(config, key)
            except OmegaConfBaseException:
                return found, f"{key} is known only when the run starts"
        found[key] = value
    return found, ""


def _is_folder(key: str) -> bool:
    return bool(FOLDER.fullmatch(key.split(".")[-1])) or key == "trainer.default_root_dir"


def _resolved(config: DictConfig, key: str) -> Value:
    value: Any = OmegaConf.select(config, key)
    if OmegaConf.is_config(value):
        return json.dumps(OmegaConf.to_container(value, resolve=True))
    return value  # type: ignore[no-any-return]


def why_alone(settings: Settings) -> str:
    """Why a run cannot be trained together with others, empty if it can."""
    for key, value in settings.items():
        name = str(value)
        if key.endswith("_target_") and name in ALONE:
            return f"{key.removesuffix('._target_')} is {name.split('.')[-1]}: {ALONE[name]}"
        if key in ALLOWED:
            allowed, reason = ALLOWED[key]
            if name not in allowed:
                return f"{key}={name}: {reason}"
    return ""


def shape(settings: Settings) -> Hashable:
    """Equal for runs that can be trained in one pass: all settings but those of :func:`is_vector`.

    A mimic loss with a model without augmented vectors is an error, which ends its run and must
    not end others: such runs have a shape of their own.
    """
    kept = {key: value for key, value in settings.items() if not is_vector(key, settings)}
    if settings.get("model._target_") != "twotower.models.dat.DAT":
        weights = [settings.get(f"loss.{name}") or 0 for name in ("lambda1", "lambda2")]
        kept["mimic"] = str([weight != 0 for weight in weights])
    return frozenset((key, str(value)) for key, value in kept.items())


def is_vector(key: str, settings: Settings) -> bool:
    """May runs of one pass differ in this setting?

    A loss of somebody else's may use its numbers in another way, so it has to be equal.
    """
    node, _, last = key.rpartition(".")
    if is_within(key, ("loss",)):
        owner = str(settings.get(f"{node}._target_"))
        return last in OF_LOSSES and owner.startswith("twotower.losses.")
    if key == THRESHOLDS:
        return True
    return key in SEEDS or (node == "optimizer" and last in OF_ADAM)


def split(jobs: Iterable[int], seeds: Sequence[Value], max_runs: int) -> list[list[int]]:
    """Divide jobs into as few passes as possible, of nearly equal size.

    Runs of one seed share their batches, so they stay together where that needs no further pass.

    Args:
        jobs: of one shape.
        seeds: of each job.
        max_runs: of a pass.
    """
    of_seed: dict[Value, list[int]] = {}
    for job in jobs:
        of_seed.setdefault(seeds[job], []).append(job)
    in_order = [job for own in of_seed.values() for job in own]
    num_passes = -(-len(in_order) // max_runs)
    whole: list[list[int]] = [sum(some, []) for some in _parts(list(of_seed.values()), num_passes)]
    parts = whole if all(0 < len(part) <= max_runs for part in whole) else None
    return [sorted(part) for part in parts or _parts(in_order, num_passes)]


def _parts(values: list[Any], num: int) -> list[list[Any]]:
    """``num`` parts of nearly equal length, in order."""
    ends = [len(values) * part // num for part in range(num + 1)]
    return [values[begin:end] for begin, end in zip(ends, ends[1:], strict=False)]


def trains_on_gpu(config: DictConfig) -> bool:
    """Will a run train on an NVIDIA GPU? Answered without torch, whose import takes seconds."""
    if str(config.trainer.accelerator) not in ("auto", "gpu", "cuda"):
        return False
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    if importlib.metadata.version("torch").endswith("+cpu"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*")) or _nvidia_smi_lists_one()


def _nvidia_smi_lists_one() -> bool:
    """Does the driver's program list a GPU? In WSL there is no device file."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.stdout.startswith("GPU")
