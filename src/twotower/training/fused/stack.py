"""Weights of several runs in stacked tensors, of which each run's own weights are views."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Stack:
    """Parameters and buffers of modules of equal structure, each with a leading dimension of runs.

    The modules' own parameters and buffers become views of the stacked tensors. So a run's module
    is always up to date: it is evaluated like any other. Its tensors must be cloned before they are
    saved, as a view is saved with all that it is a view of.

    Args:
        modules: one per run.

    Attributes:
        parameters: by name, each ``(num_runs, ...)``, with gradients.
        buffers: by name, each ``(num_runs, ...)``.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        owned = [dict(module.named_parameters()) for module in modules]
        for name, first in owned[0].items():
            whole = torch.stack([own[name].detach() for own in owned])
            for own, view in zip(owned, whole.unbind(), strict=True):
                own[name].data = view
            self.parameters[name] = whole.requires_grad_(first.requires_grad)
        for name, _ in modules[0].named_buffers():
            whole = torch.stack([module.get_buffer(name) for module in modules])
            for module, view in zip(modules, whole.unbind(), strict=True):
                owner, _, last = name.rpartition(".")
                module.get_submodule(owner)._buffers[last] = view
            self.buffers[name] = whole
