"""The frame of every script: Hydra outside, and one clear line for what the user can mend."""

import difflib
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from dotenv import load_dotenv
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.text import Text

from twotower.terminal import PlainConsole
from twotower.types import UserError

CONF = Path(__file__).parents[2] / "conf"
DEBUG = "HYDRA_FULL_ERROR"


def command(function: Callable[[DictConfig], Any], config_name: str) -> None:
    """Run ``function`` with the composed config.

    What the user can mend ends with one line on standard error and exit code 1; ``HYDRA_FULL_ERROR=1`` shows the traceback.
    Anything else is a bug of ours and keeps its traceback.
    """
    given = os.environ.get(DEBUG, "")
    os.environ[DEBUG] = "1"  # Hydra raises instead of printing
    load_dotenv()
    _quiet()
    failures: list[Exception] = []

    def job(config: DictConfig) -> Any:
        _quiet()  # again where a launcher has started a process
        os.environ[DEBUG] = given  # further processes of the run shall see what the user has set
        try:
            return function(config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failures.append(error)  # Hydra would print a line of its own
            return None
        finally:
            os.environ[DEBUG] = "1"

    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
        if failures:
            raise failures[0]
    except Exception as error:
        line = explain(error)
        if given == "1" or line is None:
            raise
        _fail(line)
    except KeyboardInterrupt:
        _fail("interrupted")
    finally:
        os.environ[DEBUG] = given


def run_dir(ckpt_path: str | None, default: str) -> str:
    """A resumed run goes on in its own folder: that of ``<run folder>/checkpoints/last.ckpt``."""
    return str(Path(ckpt_path).parent.parent) if ckpt_path else default


def record_dir(ckpt_path: str | None, now: str) -> str:
    """Where Hydra records the composed config; a resumed run keeps its first record."""
    return f".hydra/resumed-{now}" if ckpt_path else ".hydra"


def mode(dry: bool) -> str | None:
    """A dry run is Hydra's multirun of one job: a single run would make its folder first."""
    return "MULTIRUN" if dry else None


# here and not in command(), as a launcher's processes import this module before they compose a job's config
for resolver in (run_dir, record_dir, mode):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can mend, None for a bug."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
    if isinstance(chain[-1], MisconfigurationException):
        return re.sub(r"\s+", " ", str(chain[-1])).strip()
    text = " ".join(str(link) for link in chain)
    if isinstance(error, HydraException) and (match := re.search(r"Could not find '([\w/]+)/([\w.-]+)'", text)):
        options = re.findall(r"\t([\w.-]+)", text.split("Config search path")[0])
        return f"{match[1]}={match[2]}: there is no such option{_suggest(match[2], options)}; choose from {', '.join(options)}"
    if isinstance(error, HydraException) and (match := re.search(r"Could not override '([\w.@/-]+)'", text)):
        return f"{match[1]} is no setting{_suggest_setting(match[1])}"
    if "Config group override must be a string" in text:
        return "a config group takes one of its options, not null (logger=none, say)"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return re.sub(r"\s+", " ", str(error)).strip()
    if "parameters that were not used in producing the loss" in text:
        return (
            "some parameters get no gradient (augmented vectors: model.augment_gradient=mimic with a lambda of 0), and several "
            "processes wait for it: set trainer.strategy=ddp_find_unused_parameters_true"
        )
    if "can't allocate memory" in text or any(type(link).__name__ in ("MemoryError", "OutOfMemoryError") for link in chain):
        return "no memory left: lower data.batch_size, negatives.num or data.eval_batch_size"
    for link in chain:
        if isinstance(link, OSError) and not isinstance(link, ChildProcessError):
            where = f" {link.filename}:" if link.filename else ""
            return f"{where} {link.strerror or link}".strip() + " (check the folder in paths.* and its permissions)"
    return None


def check_roots(config: DictConfig, known: set[str]) -> None:
    """Refuse a setting at the root that is none: a plus sign lets ``+sed=1`` pass Hydra.

    Raises:
        UserError: naming the settings that there are.
    """
    for root in map(str, config):
        if root not in known:
            raise UserError(f"{root} is no setting; the settings are {', '.join(sorted(known))}")


def check_types(path: str, node: Any) -> None:
    """Compare every ``_target_`` of ours in a resolved config with its constructor, before anything is built.

    Raises:
        UserError: for a setting that the constructor does not have, or a value of the wrong type.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if not isinstance(node, dict):
        return
    for key, value in node.items():
        check_types(f"{path}.{key}", value)
    target = str(node.get("_target_", ""))
    if not target.startswith("twotower."):
        return
    parameters = inspect.signature(hydra.utils.get_class(target), eval_str=True).parameters
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in parameters:
            raise UserError(f"{path}.{key} is no setting of {target.split('.')[-1]}{_suggest(key, list(parameters))}")
        hint = parameters[key].annotation
        if isinstance(value, dict) or hint is inspect.Parameter.empty:
            continue
        try:
            TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input should be", "must be")
            raise UserError(f"{path}.{key} {reason}, got {value!r}") from None


def _suggest(word: str, options: list[str]) -> str:
    close = difflib.get_close_matches(word, options, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _suggest_setting(name: str) -> str:
    """The closest key of the whole configuration, found in the YAML files."""
    keys = {key for file in CONF.rglob("*.yaml") for key in re.findall(r"^\s*([a-z]\w*):", file.read_text(), re.M)}
    *parents, leaf = name.split(".")
    close = difflib.get_close_matches(leaf, keys - {leaf}, n=1)
    return f" (did you mean {'.'.join([*parents, close[0]])}?)" if close else ""


def _quiet() -> None:
    """Keep the libraries' hints off the screen; their errors stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")


def _fail(line: str) -> NoReturn:
    PlainConsole(stderr=True, soft_wrap=True).print(Text.assemble(("error:", "bold red"), f" {line}"))
    sys.exit(1)
