"""The best possible ranking of synthetic data, as a model."""

from torch import Tensor, nn

from twotower.types import Batch, Towers


class Oracle(nn.Module):
    """Scores by the true vectors, the feature ``latent`` of synthetic data in evaluation.

    It has nothing to train.
    """

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """The users' true vectors ``(batch, dim)``."""
        return features["latent"]

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """The items' true vectors ``(batch, dim)``."""
        return features["latent"]

    def forward(self, batch: Batch) -> Towers:
        """True vectors of the batch's users and distinct items."""
        return Towers(self.encode_user(batch.user), self.encode_item(batch.item))
