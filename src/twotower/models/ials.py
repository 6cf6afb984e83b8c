"""iALS: implicit alternating least squares, fitted in closed form sweep by sweep."""

import torch
from rich.progress import track
from torch import Tensor, nn

from twotower.errors import UserError, check_choice, check_number
from twotower.types import Batch, Interactions, Schema, Towers
from twotower.wording import PlainConsole

CHUNK_NUMBERS = 1 << 24  # 64 MiB of float32 for a chunk's gathered factors, and for its matrices


class IALS(nn.Module):
    """Weighted matrix factorisation with unobserved pairs as zeros (Hu et al., ICDM 2008; WALS).

    In the form of Rendle et al. ("Revisiting the Performance of iALS", RecSys 2022, Eq. 1-4),
    it minimises ``Σ_observed (s - 1)² + α Σ_all s² + λ (R_u + R_v)`` with
    ``R_u = Σ_u (|I_u| + α |I|)^ν ‖w_u‖²`` and ``R_v = Σ_i (|U_i| + α |U|)^ν ‖h_i‖²``.
    Each half sweep solves one side exactly while the other is fixed. There are no gradients, so
    the factors are buffers.

    Args:
        schema: sizes of the data.
        dim: factors.
        num_sweeps: solves of users and then items.
        unobserved_weight: ``α``.
        regularization: ``λ``.
        frequency_scaling: ``ν``: 1 regularises users and items in proportion to their interactions,
            0 all equally.
        init_std: the initial factors' norm; each has ``init_std / sqrt(dim)``.
        cold_ids: vector of an id without a trained row: ``mean`` or ``zero``.
    """

    user_factors: Tensor
    item_factors: Tensor

    def __init__(
        self,
        schema: Schema,
        dim: int,
        num_sweeps: int,
        unobserved_weight: float,
        regularization: float,
        frequency_scaling: float,
        init_std: float,
        cold_ids: str,
    ) -> None:
        super().__init__()
        check_number("model.dim", dim, 1)
        check_number("model.num_sweeps", num_sweeps, 1)
        check_number("model.unobserved_weight", unobserved_weight, 0)
        check_number("model.regularization", regularization, 0)
        check_number("model.frequency_scaling", frequency_scaling, 0, 2)
        check_number("model.init_std", init_std, 1e-6)
        check_choice("model.cold_ids", cold_ids, ("mean", "zero"))
        self.num_sweeps = num_sweeps
        self.unobserved_weight = unobserved_weight
        self.regularization = regularization
        self.frequency_scaling = frequency_scaling
        self.cold_ids = cold_ids
        for side in ("user", "item"):
            factors = torch.randn(schema.num_values(f"{side}_id"), dim) * init_std / dim**0.5
            self.register_buffer(f"{side}_factors", factors)

    def fit(self, interactions: Interactions) -> None:
        """Solve for users and items in turn. Repeated interactions of a pair count once.

        Raises:
            UserError: if the settings leave a system without one solution.
        """
        pairs = torch.stack([interactions.user, interactions.item]).to(self.user_factors.device)
        pairs = pairs.unique(dim=1) - 1  # (2, num_pairs); the factors below have no row for id 0
        user, item = self.user_factors[1:], self.item_factors[1:]  # views
        console = PlainConsole(stderr=True)
        sweeps = track(
            range(self.num_sweeps),
            "iALS sweeps",
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        for _ in sweeps:
            self._solve(user, item, pairs[0], pairs[1])
            self._solve(item, user, pairs[1], pairs[0])
        for factors in (self.user_factors, self.item_factors):
            factors[0] = factors[1:].mean(0) if self.cold_ids == "mean" else 0.0

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """``(batch, dim)`` factors."""
        return self.user_factors[features["user_id"]]

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """``(batch, dim)`` factors."""
        return self.item_factors[features["item_id"]]

    def forward(self, batch: Batch) -> Towers:
        """Factors of the batch's users and distinct items."""
        return Towers(self.encode_user(batch.user), self.encode_item(batch.item))

    def _solve(self, own: Tensor, other: Tensor, own_index: Tensor, other_index: Tensor) -> None:
        """Overwrite ``own (num, dim)`` with its optimum for a fixed ``other``.

        Rows are sorted by their number of interactions and solved in chunks, padded to the longest
        row: a chunk's systems are then one batched product and one batched solve.
        """
        (num, dim), alpha = own.shape, self.unobserved_weight
        count = torch.bincount(own_index, minlength=num)  # (num,)
        first = count.cumsum(0) - count  # (num,) where each row's partners start
        partner = other_index[own_index.argsort(stable=True)]  # (num_pairs,)
        common = alpha * other.T @ other  # (dim, dim)
        frequency = count.to(own.dtype) + alpha * len(other)
        ridge = self.regularization * frequency**self.frequency_scaling  # (num,)
        rows = count.argsort(descending=True)
        widths = count[rows].tolist()
        start = 0
        while start < num:
            width = max(1, widths[start])
            chunk = rows[start : start + max(1, CHUNK_NUMBERS // (dim * max(dim, width)))]
            place = torch.arange(width, device=own.device)
            known = place < count[chunk, None]  # (chunk, width)
            index = partner[(first[chunk, None] + place).clamp_max(len(partner) - 1)]
            item = other[index] * known[:, :, None]  # (chunk, width, dim)
            ridges = torch.diag_embed(ridge[chunk, None].expand(-1, dim))  # (chunk, dim, dim)
            factor, failed = torch.linalg.cholesky_ex(item.mT @ item + common + ridges)
            if failed.any():
                raise UserError(
                    "iALS has no unique solution: raise model.regularization or "
                    "model.unobserved_weight"
                )
            own[chunk] = torch.cholesky_solve(item.sum(1)[:, :, None], factor).squeeze(2)
            start += len(chunk)
