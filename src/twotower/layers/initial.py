"""Initial values of a model's weights."""

import torch
from torch import nn

from twotower.errors import check_number


@torch.no_grad()
def set_initial_std(model: nn.Module, std: float | None) -> None:
    """Draw all matrices from ``N(0, std)``; those that start at zero stay there.

    Embedding tables keep their random rows of length 1, scaled, so that processes which hold parts
    of a table still hold the same one.

    Args:
        model: just built.
        std: None leaves everything as it is.
    """
    if std is None:
        return
    check_number("model.init_std", std, 1e-6, 10)
    for parameter in model.parameters():
        if getattr(parameter, "is_table", False):
            parameter.mul_(std * parameter.shape[1] ** 0.5)
        elif parameter.dim() > 1 and parameter.any():
            nn.init.normal_(parameter, std=std)
