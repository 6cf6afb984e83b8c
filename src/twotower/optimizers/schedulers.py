"""Learning rates that change from step to step, as shares of those that the optimizer was given."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from twotower.errors import UserError, check_number


def linear_warmup(optimizer: Optimizer, num_steps: int | None, warmup_steps: int) -> LambdaLR:
    """Rises in equal steps, ``1 / warmup_steps`` in the first one; then the optimizer's own.

    Args:
        optimizer: each group of its parameters keeps its own learning rate to rise to.
        num_steps: of the whole training, which does not matter here.
        warmup_steps: of the optimizer.
    """
    check_number("scheduler.warmup_steps", warmup_steps, 1)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup_steps))


def cosine(
    optimizer: Optimizer, num_steps: int | None, warmup_steps: int, last_share: float
) -> LambdaLR:
    """A linear warm-up, then half a cosine wave down (Loshchilov & Hutter, ICLR 2017, no restarts).

    Torch's ``CosineAnnealingLR`` takes each rate from the one before it; here it follows from the
    step alone, so a resumed run that trains for longer follows the longer curve.

    Args:
        optimizer: each group of its parameters has its own learning rate.
        num_steps: of the whole training; None: nobody knows.
        warmup_steps: of the optimizer; 0: none.
        last_share: of the learning rate, in the last step.

    Raises:
        UserError: if the number of steps is unknown, or the warm-up takes all of them.
    """
    check_number("scheduler.warmup_steps", warmup_steps, 0)
    check_number("scheduler.last_share", last_share, 0, 1)
    if num_steps is None:
        raise UserError(
            "scheduler=cosine needs the number of steps: set trainer.max_epochs or trainer.max_steps"
        )
    if warmup_steps >= num_steps:
        raise UserError(
            f"scheduler.warmup_steps={warmup_steps} takes all {num_steps} steps of the training: give fewer"
        )

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, num_steps - 1 - warmup_steps)  # from 0 to 1
        return last_share + (1 - last_share) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    return LambdaLR(optimizer, share)
