"""The best possible ranking of synthetic data, as a model."""

from torch import Tensor, nn

from twotower.types import Batch, Towers


class Oracle(nn.Module):
    """Scores by the planted truth, which synthetic data hand over as the feature ``latent`` in evaluation. Never trained."""

    def encode_user(self, features: dict[str, Tensor]) -> Tensor:
        """The users' true vectors ``(batch, dim)``."""
        return features["latent"]

    def encode_item(self, features: dict[str, Tensor]) -> Tensor:
        """The items' true vectors ``(batch, dim)``."""
        return features["latent"]

    def forward(self, batch: Batch) -> Towers:
        """Both."""
        return Towers(self.encode_user(batch.user), self.encode_item(batch.item))
