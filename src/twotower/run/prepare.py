"""The prepare command: prepares data ahead of time and describes them."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from twotower.run.build import build_part


def prepare(config: DictConfig) -> dict[str, Any]:
    """Prepare the data that training would use, and describe them on a card."""
    # imported here, as plots take a second to import
    from twotower.data.card.describe import describe

    option = HydraConfig.get().runtime.choices["data"]
    return describe(build_part(config, "data"), option, config.force, config.output)
