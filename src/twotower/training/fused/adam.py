"""Adam and AdamW on stacked parameters, with settings of each run's own."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer


class Settings(NamedTuple):
    """One run's settings of Adam."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


class Part(NamedTuple):
    """Tensors of the runs that have equal settings, as torch's kernel takes them.

    Attributes:
        settings: of these runs.
        rate: their learning rate, a number or, where steps are recorded, a tensor on the device.
        gradients: name and run of each tensor's gradient.
        tensors: parameters, means of gradients, means of their squares, numbers of steps.
    """

    settings: Settings
    rate: float | Tensor
    gradients: list[tuple[str, int]]
    tensors: tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


class StackedAdam:
    """One step for all runs, by the kernel that torch has for one.

    Each run keeps an optimizer of its own, which holds its settings, so that a scheduler can change
    them, and its state in the ordinary format, as views of the stacked state. Runs of equal
    settings are updated in one call, but not as one tensor: a CPU's kernel rounds the end of a
    tensor otherwise, and a run must not depend on the settings of the others.

    Args:
        parameters: by name, each ``(num_runs, ...)``.
        optimizers: one per run, all Adam or all AdamW, over parameters of the same order; their
            state may be loaded from a checkpoint.
        trained: for each run the names of the parameters that get gradients when it is trained
            alone. Others are left as they are, also by weight decay.
        record: keep learning rates on the device, where a recorded step reads them.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        optimizers: Sequence[Optimizer],
        trained: Sequence[set[str]],
        record: bool = False,
    ) -> None:
        decoupled = isinstance(optimizers[0], AdamW)
        self.kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self.groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.record = record
        self.trained = trained
        used = set().union(*trained)
        self.places = {name: place for place, name in enumerate(parameters)}
        self.parameters = {name: whole for name, whole in parameters.items() if name in used}
        self.mean: dict[str, Tensor] = {}  # exp_avg
        self.square: dict[str, Tensor] = {}  # exp_avg_sq
        device = next(iter(parameters.values())).device
        # One number for each parameter, as in torch.optim, where each counts its own; float32.
        self.num_steps = torch.zeros(len(parameters), len(self.groups), device=device)
        for name, whole in self.parameters.items():
            place = self.places[name]
            self.mean[name] = torch.zeros_like(whole, requires_grad=False)
            self.square[name] = torch.zeros_like(whole, requires_grad=False)
            for run, optimizer in enumerate(optimizers):
                # Or a scheduler warns that the optimizer has made no step.
                optimizer._opt_called = True  # type: ignore[attr-defined]
                if name in trained[run]:
                    own = self.groups[run]["params"][place]
                    self._share_state(name, run, optimizer.state[own], self.num_steps[place, run])
        self._settings: list[Settings] = []
        self._parts: list[Part] = []
        self.refresh()

    def _share_state(self, name: str, run: int, state: dict[str, Tensor], step: Tensor) -> None:
        views = {
            "step": step,
            "exp_avg": self.mean[name][run],
            "exp_avg_sq": self.square[name][run],
        }
        for key, view in views.items():
            if key in state:
                view.copy_(state[key])
        state.update(views)

    def refresh(self) -> bool:
        """Take over settings that have changed since the last step.

        Returns:
            Whether more than learning rates changed, so that steps recorded before are outdated.
        """
        settings = []
        for group in self.groups:
            fixed = (*group["betas"], group["eps"], group["weight_decay"])
            settings.append(Settings(group["lr"], *fixed))
        if settings == self._settings:
            return False
        alike: dict[Settings, list[int]] = {}
        for run, own in enumerate(settings):
            alike.setdefault(own, []).append(run)
        before: dict[Settings, list[int]] = {}
        for run, own in enumerate(self._settings):
            before.setdefault(own, []).append(run)
        self._settings = settings
        same_runs = list(alike.values()) == list(before.values())
        if same_runs and all(a[1:] == b[1:] for a, b in zip(alike, before, strict=True)):
            self._parts = [
                part._replace(settings=own, rate=self._rate(own.lr, part.rate))
                for part, own in zip(self._parts, alike, strict=True)
            ]
            return False
        self._parts = [self._part(own, runs) for own, runs in alike.items()]
        return True

    def _rate(self, lr: float, before: float | Tensor) -> float | Tensor:
        if not self.record:
            return lr
        if isinstance(before, Tensor):  # a recorded step reads this one
            return before.fill_(lr)
        return torch.full((), lr, device=self.num_steps.device, dtype=torch.float32)

    def _part(self, settings: Settings, runs: list[int]) -> Part:
        part = Part(settings, self._rate(settings.lr, 0.0), [], ([], [], [], []))
        for name, whole in self.parameters.items():
            steps = self.num_steps[self.places[name]]  # (num_runs,)
            stacked = (whole.detach(), self.mean[name], self.square[name], steps)
            for run in runs:
                if name in self.trained[run]:
                    part.gradients.append((name, run))
                    for tensors, tensor in zip(part.tensors, stacked, strict=True):
                        tensors.append(tensor[run])
        return part

    @torch.no_grad()
    def step(self, gradients: dict[str, Tensor]) -> None:
        """Update all parameters.

        Args:
            gradients: by name, each ``(num_runs, ...)``.
        """
        self.num_steps += 1
        # The kernel takes the order of a gradient's numbers to be that of its parameter.
        dense = {name: gradient.contiguous() for name, gradient in gradients.items()}
        for part in self._parts:
            own = [dense[name][run] for name, run in part.gradients]
            parameters, mean, square, steps = part.tensors
            fixed = part.settings._asdict()
            fixed["lr"] = part.rate
            self.kernel(
                parameters, own, mean, square, [], steps, **fixed, amsgrad=False, maximize=False
            )


@torch.no_grad()
def clipped(gradients: dict[str, Tensor], value: float, algorithm: str) -> dict[str, Tensor]:
    """The gradients of each run, clipped by itself, as torch does for one run.

    Args:
        gradients: by name, each ``(num_runs, ...)``; unchanged, as two may be one tensor.
        value: largest norm of all of a run's gradients together, or largest entry.
        algorithm: ``norm`` or ``value``.
    """
    if algorithm == "value":
        return {name: gradient.clamp(-value, value) for name, gradient in gradients.items()}
    norms = [gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]
    norm = torch.stack(norms).norm(dim=0)  # (num_runs,)
    share = (value / (norm + 1e-6)).clamp_max(1)
    return {
        name: gradient * share.view(-1, *(1 for _ in gradient.shape[1:]))
        for name, gradient in gradients.items()
    }
