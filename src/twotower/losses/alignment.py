"""Category alignment (DAT, Eq. 3): equal covariances of the item vectors of all categories."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from twotower.distributed.collectives import RowGatherer, world_size
from twotower.errors import UserError, check_choice, check_number
from twotower.layers.batched import sum_rows
from twotower.layers.precision import at_least_float32
from twotower.losses.covariance import CategoryCovariance, category_covariance
from twotower.losses.running_covariance import RunningCovariance
from twotower.types import Batch, Schema, Towers


class Major(NamedTuple):
    """The category that others are compared with.

    Attributes:
        category: ``(1,)`` its index.
        covariance: ``(1, dim, dim)``.
        known: ``(1,)`` False if it has no covariance.
    """

    category: Tensor
    covariance: Tensor
    known: Tensor


class CategoryAlignment(nn.Module):
    """``Σ_{i>=2} ‖C(S^major) - C(S^i)‖²_F``, the squared norm, in float32 or better.

    The settings of ``conf/loss/dat.yaml`` are the paper's: they compare the covariances within one
    batch. These are noisy: for unit vectors of 32 dimensions after a ReLU, all from one
    distribution, ‖C‖² is .0145, and the expected squared error of a covariance is .457 from two
    items, .050 from 10 and .024 from 20. The other settings reduce this noise. With fewer than two
    categories to compare, the loss is a zero that stays in the graph.

    A step needs a few matrices ``(dim, dim)`` for each category that occurs in it: at most as many
    as it has items, never one for each category of the data. Only ``momentum`` keeps one for each
    category, up to 1 GiB. With several processes, the items of all of them are compared.

    Args:
        schema: sizes of the data.
        major: ``batch``, the largest category of each batch, the first one of equal size (the
            paper), or ``global``, the largest of the training data. In a batch from many categories
            of similar size the largest one is random, so the others' target changes in every step.
        detach_major: no gradient into the major category. The paper does not stop this
            gradient: there a large category also moves towards the noise of small ones.
        count: ``pairs``, an item counts as often as it occurs in the batch, as a positive or as a
            drawn negative (the paper's sample set); ``items``, each distinct item counts once, so
            that a popular item does not dominate its category's covariance.
        min_items: categories with fewer items in the batch, counted as ``count`` says, are left
            out. One item has no covariance, few have mostly noise. With ``pairs`` an item that
            occurs twice counts as two; if it is the only one of its category, its zero covariance
            is compared.
        unbiased: covariances divide by ``n - 1``, not by ``n``, which pulls those of small
            categories to zero; the paper does not name the estimator.
        weighting: ``none``, or ``sqrt_n``: categories have the square root of their size as weight,
            scaled to a mean of 1, as the noise of a covariance falls with ``n``.
        over_categories: ``sum`` (the paper) or ``mean``, which makes ``lambda3`` independent of the
            number of categories in a batch.
        momentum: share of the past in a running covariance of each category, so that each matrix
            averages many batches; 0: none. The gradient flows only through the current batch, with
            a share of ``1 - momentum`` (more in the first batches). Checkpoints hold the state.

    Raises:
        UserError: for settings out of range, and for ``major=global`` without category counts in
            the schema.
    """

    def __init__(
        self,
        schema: Schema,
        major: str,
        detach_major: bool,
        count: str,
        min_items: int,
        unbiased: bool,
        weighting: str,
        over_categories: str,
        momentum: float,
    ) -> None:
        super().__init__()
        check_choice("loss.alignment.major", major, ("batch", "global"))
        check_choice("loss.alignment.count", count, ("pairs", "items"))
        check_number("loss.alignment.min_items", min_items, 1)
        check_choice("loss.alignment.weighting", weighting, ("none", "sqrt_n"))
        check_choice("loss.alignment.over_categories", over_categories, ("sum", "mean"))
        check_number("loss.alignment.momentum", momentum, 0, 0.9999)
        if major == "global" and len(schema.category_counts) != schema.num_categories:
            raise UserError(
                "loss.alignment.major=global needs the categories' training counts: "
                "prepare the data again"
            )
        self.num_categories = schema.num_categories
        self.global_major: int | None = None
        if major == "global" and schema.num_categories > 0:
            self.global_major = schema.category_counts.index(max(schema.category_counts))
        self.detach_major = detach_major
        self.count = count
        self.min_items = min_items
        self.unbiased = unbiased
        self.weighting = weighting
        self.over_categories = over_categories
        self.running = RunningCovariance(schema.num_categories, momentum) if momentum > 0 else None

    def forward(self, towers: Towers, batch: Batch) -> Tensor:
        """Scalar loss."""
        with torch.autocast(towers.item.device.type, enabled=False):
            item, category = at_least_float32(towers.item), batch.category  # (num_distinct, dim)
            if self.count == "pairs":
                weight = pair_counts(batch)  # (num_distinct,)
            else:
                weight = torch.ones(len(item), device=item.device)
            if world_size() > 1:
                item, category, weight = self._gather(item, batch, weight)
            current = category_covariance(
                item, category, weight, self.num_categories, self.unbiased
            )
            n = current.n.round()  # sums of fractions from several processes
            current = current._replace(n=n * (n >= self.min_items))  # 0: left out
            if self.running is not None:
                current = self.running(current)
            return self._distance(current, self._major(current))

    def _gather(self, item: Tensor, batch: Batch, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Item vectors, categories and weights of all processes.

        With ``count=items``, an item in several processes has a weight of 1 over all of them.
        """
        gather = RowGatherer(len(item), item.device)
        item, category, weight = gather(item), gather(batch.category, -1), gather(weight)
        if self.count == "items":
            _, place, copies = torch.unique(
                gather(batch.item_index, -1), return_inverse=True, return_counts=True
            )
            weight = weight / copies[place]
        return item, category, weight

    def _major(self, current: CategoryCovariance) -> Major:
        counted = current.n > 0  # (num_groups,)
        if self.global_major is None:
            # Shape (1,), as an index without dimensions would wait for the device.
            place = current.n.argmax(0, keepdim=True)  # the first of equal size
            category, known = current.category[place], counted[place]
        else:
            category = torch.full_like(current.category[:1], self.global_major)
            matches = counted & (current.category == category)
            place = matches.int().argmax(0, keepdim=True)  # (1,)
            known = matches[place]
        covariance = current.covariance.index_select(0, place)  # (1, dim, dim)
        if self.running is not None and self.global_major is not None:
            # The past covariance replaces that of a batch without the global major category.
            covariance = covariance.where(known, self.running.covariance[self.global_major])
            known = known | (self.running.updates[self.global_major] > 0)
        return Major(category, covariance.detach() if self.detach_major else covariance, known)

    def _distance(self, current: CategoryCovariance, major: Major) -> Tensor:
        """Weighted sum or mean of the others' squared distances to the major category."""
        is_other = (current.n > 0) & (current.category != major.category) & major.known
        weight = is_other.to(current.n.dtype)  # (num_groups,)
        num_others = weight.sum().clamp_min(1)
        if self.weighting == "sqrt_n":
            weight = weight * current.n.sqrt()
            weight = weight * num_others / weight.sum().clamp_min(1)
        distance = (current.covariance - major.covariance).square().sum((1, 2))  # (num_groups,)
        total = (weight * distance).sum()
        return total / num_others if self.over_categories == "mean" else total


def pair_counts(batch: Batch) -> Tensor:
    """How often each distinct item is a positive or a drawn negative: ``(num_distinct,)``.

    An in-batch negative is the positive of another row, so it counts once, not twice.
    """
    if batch.num_draws is not None and batch.in_batch:
        return batch.num_draws.float()
    row = batch.positive
    if batch.negative is not None:
        row = torch.cat([row[:, None], batch.negative], 1).flatten()
    counts = sum_rows(
        torch.ones_like(row, dtype=torch.get_default_dtype()), row, len(batch.item_index)
    )
    if batch.num_draws is None:
        return counts
    return counts + batch.num_draws / world_size()  # all processes have the same draws
