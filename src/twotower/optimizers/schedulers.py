"""Learning-rate schedules per step, as factors of the optimizer's learning rates."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from twotower.errors import UserError, check_number


def linear_warmup(optimizer: Optimizer, num_steps: int | None, warmup_steps: int) -> LambdaLR:
    """A linear rise from ``1 / warmup_steps`` to 1 over the first steps, then constant.

    Args:
        optimizer: the factor multiplies the learning rate of each parameter group.
        num_steps: steps of the whole training, not used here.
        warmup_steps: optimizer steps until the factor is 1.
    """
    check_number("scheduler.warmup_steps", warmup_steps, 1)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup_steps))


def cosine(
    optimizer: Optimizer, num_steps: int | None, warmup_steps: int, last_share: float
) -> LambdaLR:
    """A linear warm-up, then half a cosine wave down (Loshchilov & Hutter, ICLR 2017, no restarts).

    Torch's ``CosineAnnealingLR`` computes each rate from the previous one; here it depends only on
    the step, so a resumed run that trains longer follows the longer curve.

    Args:
        optimizer: the factor multiplies the learning rate of each parameter group.
        num_steps: optimizer steps of the whole training; None if unknown.
        warmup_steps: optimizer steps until the factor is 1; 0: no warm-up.
        last_share: factor in the last step.

    Raises:
        UserError: if the number of steps is unknown, or not above ``warmup_steps``.
    """
    check_number("scheduler.warmup_steps", warmup_steps, 0)
    check_number("scheduler.last_share", last_share, 0, 1)
    if num_steps is None:
        raise UserError(
            "scheduler=cosine needs the number of steps: set trainer.max_epochs or "
            "trainer.max_steps"
        )
    if warmup_steps >= num_steps:
        raise UserError(
            f"scheduler.warmup_steps={warmup_steps} must be below the {num_steps} steps of training"
        )

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, num_steps - 1 - warmup_steps)  # from 0 to 1
        return last_share + (1 - last_share) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    return LambdaLR(optimizer, share)
