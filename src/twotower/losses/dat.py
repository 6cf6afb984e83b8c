"""The DAT loss: task, two mimic losses, category alignment (Yu et al., DLP-KDD 2021, Eq. 5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from twotower.errors import UserError, check_choice, check_number
from twotower.losses.functional import mimic
from twotower.losses.mimic_target import mean_of_batch, of_another
from twotower.types import Batch, LossOutput, Schema, Towers


class DATLoss(nn.Module):
    """``loss = task + lambda1 mimic_user + lambda2 mimic_item + lambda3 alignment``.

    A weight of 0 removes its term: it is neither computed nor logged. With ``lambda1=lambda2=0``
    any model can use this loss; ``lambda3`` needs data with categories.

    Args:
        schema: sizes of the data.
        task: the task loss, called with ``(towers, batch)``.
        lambda1: weight of the user side's mimic loss (paper: 0.5).
        lambda2: weight of the item side's mimic loss (paper: 0.5).
        lambda3: weight of category alignment (paper: 1).
        reduction: divisor of the mimic losses. ``pairs`` is the paper's ``T``, which counts
            negatives too, so more negatives mean smaller mimic losses; ``positives`` is the mean
            over the pairs that contribute.
        over_dim: ``sum`` or ``mean`` of the mimic error over the dimensions; the paper does not
            say which.
        alignment: builds the alignment loss from the schema, see
            :class:`~twotower.losses.alignment.CategoryAlignment`.
        mimic_target: ``own``, the other tower's output for the same pair (the paper), or a placebo:
            ``shuffled``, that of a pair of another user (for ``a_v``: of another item) in the batch
            of the process; ``mean``, the mean over the batch's positives.

    Raises:
        UserError: for a weight that is negative or not finite, for ``lambda3`` on data without
            categories, and for a placebo without mimic losses.
    """

    def __init__(
        self,
        schema: Schema,
        task: nn.Module,
        lambda1: float,
        lambda2: float,
        lambda3: float,
        reduction: str,
        over_dim: str,
        alignment: Callable[[Schema], nn.Module],
        mimic_target: str = "own",
    ) -> None:
        super().__init__()
        check_number("loss.lambda1", lambda1, 0)
        check_number("loss.lambda2", lambda2, 0)
        check_number("loss.lambda3", lambda3, 0)
        check_choice("loss.reduction", reduction, ("pairs", "positives"))
        check_choice("loss.over_dim", over_dim, ("sum", "mean"))
        check_choice("loss.mimic_target", mimic_target, ("own", "shuffled", "mean"))
        if mimic_target != "own" and lambda1 == lambda2 == 0:
            raise UserError(
                f"loss.mimic_target={mimic_target} changes the mimic losses, and there are none: "
                "set loss.lambda1 or loss.lambda2 above 0, or loss.mimic_target=own"
            )
        if lambda3 > 0 and schema.num_categories == 0:
            raise UserError(
                f"loss.lambda3={lambda3} aligns categories, and the data have none: set "
                "loss.lambda3=0, or name their column (data=table: "
                "data.reader.item_columns.category, or data.reader.columns.category)"
            )
        self.task = task
        self.lambda1, self.lambda2, self.lambda3 = lambda1, lambda2, lambda3
        weights = {"mimic_user": lambda1, "mimic_item": lambda2, "alignment": lambda3}
        self.terms = {name for name, weight in weights.items() if weight > 0}
        self.reduction = reduction
        self.over_dim = over_dim
        self.mimic_target = mimic_target
        self.alignment = alignment(schema)

    def forward(self, towers: Towers, batch: Batch) -> LossOutput:
        """The weighted total and its unweighted terms.

        Raises:
            UserError: for a mimic loss with a model without augmented vectors.
        """
        terms = {"task": batch.share * self.task(towers, batch)}
        total = terms["task"]
        num_pairs = batch.num_pairs if self.reduction == "pairs" else len(batch.positive)
        if "mimic_user" in self.terms:
            a_u = self._augmented(towers.user_augmented, "lambda1")  # (batch, dim)
            p_v = towers.item.index_select(0, batch.positive)  # (batch, dim)
            p_v = self._target(a_u, p_v, batch.user["user_id"], batch)
            error = mimic(a_u, p_v, num_pairs, self.over_dim, batch.weight)
            terms["mimic_user"] = batch.share * error
            total = total + self.lambda1 * terms["mimic_user"]
        if "mimic_item" in self.terms:
            a_v = self._augmented(towers.item_augmented, "lambda2")  # (num_distinct, dim)
            a_v = a_v.index_select(0, batch.positive)  # (batch, dim)
            p_u = self._target(a_v, towers.user, batch.positive, batch)
            error = mimic(a_v, p_u, num_pairs, self.over_dim, batch.weight)
            terms["mimic_item"] = batch.share * error
            total = total + self.lambda2 * terms["mimic_item"]
        if "alignment" in self.terms:
            terms["alignment"] = self.alignment(towers, batch)
            total = total + self.lambda3 * terms["alignment"]
        return LossOutput(total, terms)

    def _target(self, augmented: Tensor, own: Tensor, owner: Tensor, batch: Batch) -> Tensor:
        """``(batch, dim)`` what each augmented vector mimics; ``own`` is the paper's target."""
        if self.mimic_target == "mean":
            return mean_of_batch(own)
        if self.mimic_target == "shuffled":
            item = batch.item_index[batch.positive]
            salt = (item * torch.arange(1, len(item) + 1, device=item.device)).sum()
            other, is_other = of_another(own, owner, salt)
            # Without error where the batch has no other owner for a row.
            return torch.where(is_other[:, None], other, augmented.detach())
        return own

    @staticmethod
    def _augmented(vectors: Tensor | None, weight: str) -> Tensor:
        if vectors is None:
            raise UserError(
                f"loss.{weight} > 0 needs augmented vectors that it can train, and the model has "
                "none: use it with model=dat model.augment_gradient=both, or set loss=plain"
            )
        return vectors
