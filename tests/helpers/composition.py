"""Cache of composed configurations: Hydra takes 0.1 s for one, and each script composes twice.

The first composition only reads ``hydra.mode``; it is made of the overrides that decide it.
"""

import copy
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.utils import JobRuntime
from omegaconf import DictConfig

from twotower.run.derive import fill

CONF = Path(__file__).parents[2] / "conf"
OURS = {"hydra.conf", str(CONF), ""}  # other folders may change during a test
OF_MODE = ("sweep=", "experiment=", "dry=", "hydra.mode=")  # overrides that decide hydra.mode


def remember() -> None:
    """Make Hydra cache what it reads and composes from our own files."""
    read: dict[str, Any] = {}
    composed: dict[str, DictConfig] = {}
    merged: dict[str, DictConfig] = {}
    read_now, compose_now = ConfigRepository.load_config, ConfigLoaderImpl.load_configuration
    choices_now = defaults_list._create_interpolation_map
    merge_now, mode_now = ConfigLoaderImpl._compose_config_from_defaults_list, Hydra.get_mode

    def load_config(self: ConfigRepository, config_path: str) -> Any:
        if not OURS.issuperset(source.path for source in self.sources):
            return read_now(self, config_path)
        if config_path not in read:
            read[config_path] = read_now(self, config_path)
        return copy.deepcopy(read[config_path])

    def load_configuration(self: ConfigLoaderImpl, *args: Any, **settings: Any) -> DictConfig:
        places = {source.path for source in self.repository.get_sources()}
        key = repr((args, settings, JobRuntime().get("name")))
        if not places <= OURS or "searchpath" in key:
            return compose_now(self, *args, **settings)
        if key not in composed:
            composed[key] = compose_now(self, *args, **settings)
        config = copy.deepcopy(composed[key])
        config.hydra.runtime.cwd = str(Path.cwd())
        return config

    def merge(self: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> DictConfig:
        key = repr(defaults)
        if not OURS.issuperset(source.path for source in repo.get_sources()):
            return merge_now(self, defaults, repo)
        if key not in merged:
            merged[key] = merge_now(self, defaults, repo)
        return copy.deepcopy(merged[key])

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        return mode_now(self, config_name, [text for text in overrides if text.startswith(OF_MODE)])

    def choices(overrides: Any, defaults: list[Any], self_added: bool) -> DictConfig:
        """What interpolations in a list of defaults may name: slow, and most lists have none."""
        if not any(default.is_interpolation() for default in defaults if not default.is_self()):
            return DictConfig({})
        return choices_now(overrides, defaults, self_added)

    defaults_list._create_interpolation_map = choices
    Hydra.get_mode = get_mode
    ConfigLoaderImpl._compose_config_from_defaults_list = merge
    ConfigRepository.load_config = load_config
    ConfigLoaderImpl.load_configuration = load_configuration


def compose_derived(*overrides, num_positives=67_817):
    """With the values that many training interactions give to settings that are null."""
    config = compose_train(*overrides)
    fill(config, num_positives)
    return config


def compose_train(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))
