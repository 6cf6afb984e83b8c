"""Category alignment (DAT, Eq. 3): the covariance of the item vectors shall be the same in every category."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from twotower.distributed.collectives import RowGatherer, world_size
from twotower.errors import UserError, check_choice, check_number
from twotower.losses.covariance import CategoryCovariance, category_covariance
from twotower.losses.functional import at_least_float32
from twotower.types import Batch, Schema, Towers

MAX_STATE = 1 << 28  # numbers in the running covariances: 1 GiB of float32


class Major(NamedTuple):
    """The category that the others are compared with.

    Attributes:
        category: ``(1,)`` its index.
        covariance: ``(1, dim, dim)``.
        known: ``(1,)`` False if there is nothing to compare with.
    """

    category: Tensor
    covariance: Tensor
    known: Tensor


class CategoryAlignment(nn.Module):
    """``Σ_{i>=2} ‖C(S^major) - C(S^i)‖²_F``: the squared norm, in float32 at the least, items centred first.

    The paper's is the one of ``conf/loss/dat.yaml``: it compares what one batch holds of each category. That is noisy. For unit
    vectors of 32 dimensions behind a ReLU, all from one distribution, ‖C‖² is .0145, and the expected squared error of a
    covariance is .457 from two items, .050 from 10 and .024 from 20. The other settings are answers to it. Without two
    categories to compare, the loss is a zero that stays in the graph.

    A step needs a few matrices ``(dim, dim)`` for each category that occurs in it: at most as many as it has items, never one
    for each category of the data. Only ``momentum`` holds one for each, and refuses beyond 1 GiB. Several processes compare what
    they hold together.

    Args:
        schema: sizes of the data.
        major: ``batch``, the largest category of each batch and among equals the first (the paper), or ``global``, the largest of
            the training data. In a batch drawn from many categories of like size, the largest one is a matter of chance: the
            others then chase a target that changes from step to step.
        detach_major: no gradient into the major category. The paper has no such stop, so that a large category also moves
            towards the small ones' noise; with it they move towards the large one alone.
        count: ``pairs``, an item counts as often as it stands in the batch, as a positive or as a drawn negative (the paper's
            sample set); ``items``, each distinct item once, so that a popular item does not shape its category's covariance
            by itself.
        min_items: categories with fewer items in the batch, so counted, are left out. One item has no covariance, and few have
            mostly noise. By ``pairs`` an item that stands there twice counts as two; if it is its category's only one, its
            covariance of zero is compared.
        unbiased: covariances divide by ``n - 1``, not by ``n``, which pulls those of small categories to zero; the paper does not
            name the estimator.
        weighting: ``none``, or ``sqrt_n``: categories weigh as the root of their size, scaled to a mean of 1, as the noise of a
            covariance falls with ``n``.
        over_categories: ``sum`` (the paper) or ``mean``, so that ``lambda3`` means the same whatever number of categories a batch
            holds.
        momentum: share of the past in a running covariance of each category, 0: none. Many batches then stand behind each matrix.
            The gradient flows through the current batch's share alone, which is ``1 - momentum`` (more while the past is short).
            The state is part of the checkpoint.

    Raises:
        UserError: for settings out of range, and for ``major=global`` if the schema does not count categories.
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
                "loss.alignment.major=global needs the categories' training counts: prepare the data again"
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
            item = at_least_float32(towers.item)  # (num_distinct, dim)
            weight = (
                pair_counts(batch)
                if self.count == "pairs"
                else torch.ones(len(item), device=item.device)
            )
            category = batch.category
            if world_size() > 1:
                item, category, weight = self._of_all_processes(item, batch, weight)
            found = category_covariance(item, category, weight, self.num_categories, self.unbiased)
            n = found.n.round()  # of parts of several processes, say thirds
            found = found._replace(n=n * (n >= self.min_items))  # 0: left out
            if self.running is not None:
                found = self.running(found)
            return self._distance(found, self._major(found))

    def _of_all_processes(
        self, item: Tensor, batch: Batch, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Item vectors, categories and weights of all processes; what several of them hold weighs as if it stood there once."""
        everyones = RowGatherer(len(item), item.device)
        item, category, weight = everyones(item), everyones(batch.category, -1), everyones(weight)
        if self.count == "items":
            _, place, holders = torch.unique(
                everyones(batch.item_index, -1), return_inverse=True, return_counts=True
            )
            weight = weight / holders[place]
        return item, category, weight

    def _major(self, found: CategoryCovariance) -> Major:
        if self.global_major is None:
            place = found.n.argmax(
                0, keepdim=True
            )  # (1,), the first of equals; a tensor of one place, as x[scalar] waits for the device
            category, known = found.category[place], found.n[place] > 0
        else:
            category = torch.full_like(found.category[:1], self.global_major)
            place = ((found.category == category) & (found.n > 0)).int().argmax(0, keepdim=True)
            known = (found.category[place] == category) & (found.n[place] > 0)
        covariance = found.covariance.index_select(0, place)  # (1, dim, dim)
        if (
            self.running is not None and self.global_major is not None
        ):  # a batch may lack it: its past does
            covariance = covariance.where(known, self.running.covariance[self.global_major])
            known = known | (self.running.updates[self.global_major] > 0)
        return Major(category, covariance.detach() if self.detach_major else covariance, known)

    def _distance(self, found: CategoryCovariance, major: Major) -> Tensor:
        """Weighted sum or mean of the others' squared distances to the major category."""
        others = (found.n > 0) & (found.category != major.category) & major.known  # (num_groups,)
        weight = others.to(found.n.dtype)
        num_others = weight.sum().clamp_min(1)
        if self.weighting == "sqrt_n":
            weight = weight * found.n.sqrt()
            weight = weight * num_others / weight.sum().clamp_min(1)
        distance = (found.covariance - major.covariance).square().sum((1, 2))  # (num_groups,)
        total = (weight * distance).sum()
        return total / num_others if self.over_categories == "mean" else total


class RunningCovariance(nn.Module):
    """Each category's covariance as a moving average over batches.

    The first batches are averaged evenly, until one batch's share has fallen to ``1 - momentum``: so the state starts at what was
    seen, not at zero. The width of the vectors is known at the first batch, or from the checkpoint.

    Args:
        num_categories: number of matrices.
        momentum: share of the past.
    """

    covariance: Tensor
    updates: Tensor

    def __init__(self, num_categories: int, momentum: float) -> None:
        super().__init__()
        self.num_categories = num_categories
        self.momentum = momentum
        self.register_buffer(
            "covariance", torch.zeros(0)
        )  # (num_categories + 1, dim, dim); the last takes what is left out
        self.register_buffer("updates", torch.zeros(num_categories + 1, dtype=torch.long))

    def forward(self, found: CategoryCovariance) -> CategoryCovariance:
        """Current covariances, blended with their past; in training they become part of it.

        Raises:
            UserError: if the state would be too large.
        """
        if self.covariance.dim() == 1:
            self._allocate(found.covariance.shape[-1], found.covariance)
        past = self.covariance.index_select(0, found.category).to(found.covariance.dtype)
        share = self._share().index_select(0, found.category).to(past.dtype)
        blended = torch.lerp(past, found.covariance, share[:, None, None])  # (num_groups, dim, dim)
        if self.training:
            self._update(found)
        return found._replace(covariance=blended)

    def _share(self) -> Tensor:
        """``(num_categories + 1,)`` weight of the current batch."""
        return (1 / (self.updates + 1).double()).clamp_min(1 - self.momentum)

    @torch.no_grad()
    def _update(self, found: CategoryCovariance) -> None:
        occurs = (
            torch.zeros_like(self.updates)
            .index_add_(0, found.category, (found.n > 0).long())
            .clamp_max(1)
        )
        current = torch.zeros_like(self.covariance)
        current.index_add_(
            0, found.category, (found.n > 0)[:, None, None] * found.covariance.to(current.dtype)
        )
        share = (self._share() * occurs).to(current.dtype)
        self.covariance.lerp_(current, share[:, None, None])
        self.updates += occurs

    def _allocate(self, dim: int, like: Tensor) -> None:
        size = (self.num_categories + 1) * dim * dim
        if size > MAX_STATE:
            raise UserError(
                f"loss.alignment.momentum keeps {self.num_categories:,} covariances of {dim} x {dim}, {4 * size / 2**30:.1f} GiB"
                ": set loss.alignment.momentum=0, or lower the model's dim"
            )
        self.covariance = like.new_zeros(self.num_categories + 1, dim, dim)

    def allocate_for(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Take the width of the vectors from weights that are about to be loaded.

        Args:
            state: weights by name.
            prefix: of the names of this module.
        """
        saved = state.get(f"{prefix}covariance")
        if (
            self.covariance.dim() > 1
            or saved is None
            or saved.dim() != 3
            or not saved.is_floating_point()
        ):
            return
        if saved.shape == (self.num_categories + 1, saved.shape[-1], saved.shape[-1]):
            self._allocate(saved.shape[-1], self.updates.new_zeros((), dtype=saved.dtype))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        self.allocate_for(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def pair_counts(batch: Batch) -> Tensor:
    """How often each distinct item stands in the batch, as a positive or as a drawn negative: ``(num_distinct,)``.

    An in-batch negative is a positive of another row: it stands there once, not twice.
    """
    if batch.num_draws is not None and batch.in_batch:
        return batch.num_draws.float()
    row = (
        batch.positive
        if batch.negative is None
        else torch.cat([batch.positive[:, None], batch.negative], 1).flatten()
    )
    counts = torch.zeros(len(batch.item_index), device=row.device)
    counts = counts.index_add(0, row, torch.ones_like(row, dtype=counts.dtype))
    return (
        counts if batch.num_draws is None else counts + batch.num_draws / world_size()
    )  # every process has the same draws
