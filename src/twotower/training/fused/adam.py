"""Adam and AdamW on stacked parameters, with settings of each run's own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from twotower.errors import UserError


class StackedAdam:
    """One step for all runs: learning rate, betas, eps and weight decay are vectors over runs.

    Each run keeps an optimizer of its own, which holds its settings, so that a scheduler can change
    them, and its state in the ordinary format, as views of the stacked state. Only the arithmetic
    is done here.

    Args:
        parameters: by name, each ``(num_runs, ...)``.
        optimizers: one per run, over parameters of the same order; their state may be loaded from a
            checkpoint, with an equal number of steps.
        trained: for each run the names of the parameters that get gradients when it is trained
            alone. Others are left as they are, also by weight decay.

    Raises:
        UserError: for an optimizer other than Adam and AdamW.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        optimizers: Sequence[Optimizer],
        trained: Sequence[set[str]],
    ) -> None:
        kind = type(optimizers[0])
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        plain = len(groups) == len(optimizers) and not any(
            group["amsgrad"] or group["maximize"] for group in groups if kind in (Adam, AdamW)
        )
        if kind not in (Adam, AdamW) or not plain:
            raise UserError(f"runs with optimizer {kind.__name__} cannot be trained in one pass")
        self.decoupled = kind is AdamW
        self.groups = groups
        used = {name for own in trained for name in own}
        self.parameters: list[tuple[int, str, Tensor]] = []
        self.mask: dict[str, Tensor | None] = {}
        self.mean: dict[str, Tensor] = {}  # exp_avg
        self.square: dict[str, Tensor] = {}  # exp_avg_sq
        device = next(iter(parameters.values())).device
        # One number for each parameter, as in torch.optim, where each counts its own; float32.
        self.num_steps = torch.zeros(len(parameters), len(groups), device=device)
        for place, (name, whole) in enumerate(parameters.items()):
            if name not in used:
                continue
            self.parameters.append((place, name, whole))
            is_trained = [name in own for own in trained]
            everywhere = all(is_trained)
            self.mask[name] = None if everywhere else torch.tensor(is_trained, device=device)
            self.mean[name] = torch.zeros_like(whole, requires_grad=False)
            self.square[name] = torch.zeros_like(whole, requires_grad=False)
            for run, optimizer in enumerate(optimizers):
                if is_trained[run]:
                    own = groups[run]["params"][place]
                    self._share_state(name, run, optimizer.state[own], self.num_steps[place, run])

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

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters from their gradients."""
        self.num_steps += 1
        step = self.num_steps.double()  # (num_parameters, num_runs)
        lr, eps, decay = (self._vector(key) for key in ("lr", "eps", "weight_decay"))
        beta1, beta2 = (self._vector("betas", place) for place in range(2))
        sizes = lr / (1 - beta1**step)
        roots = (1 - beta2**step).sqrt()
        for place, name, whole in self.parameters:
            size, root = sizes[place], roots[place]
            gradient = whole.grad
            assert gradient is not None

            def along(vector: Tensor, whole: Tensor = whole) -> Tensor:
                return vector.to(whole.dtype).view(-1, *(1 for _ in whole.shape[1:]))

            new = whole * along(1 - lr * decay) if self.decoupled else whole
            if not self.decoupled:
                gradient = gradient + along(decay) * whole
            mean, square = self.mean[name], self.square[name]
            mean.add_(along(1 - beta1) * (gradient - mean))
            square.mul_(along(beta2)).add_(along(1 - beta2) * gradient * gradient)
            new = new - along(size) * (mean / (square.sqrt() / along(root) + along(eps)))
            mask = self.mask[name]
            whole.copy_(new if mask is None else torch.where(along(mask).bool(), new, whole))

    def _vector(self, key: str, place: int | None = None) -> Tensor:
        """``(num_runs,)`` a setting of all runs."""
        values = [group[key] if place is None else group[key][place] for group in self.groups]
        return torch.tensor(values, dtype=torch.double, device=self.num_steps.device)
