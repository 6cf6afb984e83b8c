"""The frame of every script: Hydra outside, and one clear line for what the user can mend."""

import difflib
import importlib
import logging
import os
import re
import shlex
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from rich.text import Text

from twotower import signals
from twotower.errors import UserError
from twotower.run.checkpoint.file import checkpoint_file
from twotower.run.checks.checks import CONF, check_config, suggest
from twotower.run.environment import read_env_file
from twotower.run.run_folder import RunFolder
from twotower.wording import PlainConsole

DEBUG = "HYDRA_FULL_ERROR"


def command(function: str, config_name: str, in_sweep: str = "") -> None:
    """Run the function called ``function``, with its module, with the composed config; a sweep's jobs run ``in_sweep``.

    Its module is imported once the config is composed: torch and Lightning take seconds, which ``--help`` and a typo need not.

    What the user can mend ends with one line on standard error and exit code 1; ``HYDRA_FULL_ERROR=1`` shows the traceback.
    Anything else is a bug of ours and keeps its traceback. SIGTERM and Ctrl-C end with a line too, see :mod:`twotower.signals`.
    """
    signals.listen()
    given = os.environ.get(DEBUG, "")
    os.environ[DEBUG] = "1"  # Hydra raises instead of printing
    _quiet()
    failures: list[Exception] = []

    def job(config: DictConfig) -> Any:
        _quiet()  # again where a launcher has started a process
        os.environ[DEBUG] = given  # further processes of the run shall see what the user has set
        try:
            check_config(config)
            is_job = in_sweep and HydraConfig.get().mode == RunMode.MULTIRUN
            module, _, name = (in_sweep if is_job else function).rpartition(".")
            called = getattr(importlib.import_module(module), name)
            with signals.running():
                return called(config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failures.append(error)  # Hydra would print a line of its own
            return None
        finally:
            os.environ[DEBUG] = "1"

    try:
        check_arguments(sys.argv[1:])
        read_env_file()
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
        if failures:
            raise failures[0]
    except Exception as error:
        if signum := signals.asked():  # such as a process whose partner has stopped before it
            sys.exit(signals.finish(signum))
        line = explain(error)
        if given == "1" or line is None:
            raise
        _fail(line)
    except signals.Stopped as stop:
        sys.exit(signals.finish(stop.signum))
    except KeyboardInterrupt:  # Polars has its own handler while it works
        sys.exit(signals.finish(signal.SIGINT))
    finally:
        os.environ[DEBUG] = given
        signals.give_back()


def run_dir(ckpt_path: object, default: str) -> str:
    """A resumed run goes on in its own folder: that of ``<run folder>/checkpoints/last.ckpt``.

    Raises:
        UserError: if there is no such file, before Hydra makes a folder for it.
    """
    return default if ckpt_path is None else str(RunFolder.of(checkpoint_file(ckpt_path)).path)


def mode(dry: bool) -> str | None:
    """A dry run is Hydra's multirun of one job: a single run would make its folder first.

    Raises:
        UserError: for another value, which would be a dry run if it only counts as true.
    """
    if not isinstance(dry, bool):
        raise UserError(f"dry must be true or false, got {dry!r}")
    return "MULTIRUN" if dry else None


# here and not in command(), as a launcher's processes import this module before they compose a job's config
for resolver in (run_dir, mode):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def check_arguments(arguments: list[str]) -> None:
    """Say what is wrong with a command line, where Hydra prints its usage or its grammar.

    Raises:
        UserError: with the form that works.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    for text in parser.parse_args(arguments).overrides:
        key, equals, value = text.partition("=")
        if not text.startswith("~") and not (key.strip("+") and equals):
            raise UserError(
                f"{text}: a setting is given as name=value (a value with blanks needs quotes)"
            )
        try:
            OverridesParser.create().parse_override(text)
        except HydraException:
            raise UserError(
                f"{text}: spaces, commas, brackets and = in a text need quotes within quotes: {_quoted(key, value)}"
            ) from None


def _refuse(message: str) -> NoReturn:
    raise UserError(
        f"{message} (settings are given as name=value, all before or all after -m; --help shows them)"
    )


def _quoted(key: str, value: str) -> str:
    """A setting as a shell takes it whose value is a text for Hydra."""
    escaped = value.strip("\"'").replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'{key}="{escaped}"')


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can mend, None for a bug."""
    chain = [error]
    while (cause := _cause(chain[-1])) is not None:
        chain.append(cause)
    text = " ".join(str(link) for link in chain)
    if "tensorboard" in text and any(isinstance(link, ModuleNotFoundError) for link in chain):
        return "logger=tensorboard needs a package that is not installed: pip install -e '.[tensorboard]'"
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
    if (
        type(chain[-1]).__name__ == "MisconfigurationException"
    ):  # Lightning's, which may not be imported yet
        return re.sub(r"\s+", " ", str(chain[-1])).strip()
    if isinstance(error, HydraException) and (
        match := re.search(r"Could not find '([\w/]+)/([\w.-]+)'", text)
    ):
        options = re.findall(r"\t([\w.-]+)", text.split("Config search path")[0])
        return f"{match[1]}={match[2]}: there is no such option{suggest(match[2], options)}; choose from {', '.join(options)}"
    if isinstance(error, HydraException) and (
        match := re.search(r"Could not override '([\w.@/-]+)'", text)
    ):
        return f"{match[1]} is no setting{_suggest_setting(match[1])}"
    if match := re.search(r"Ambiguous value for argument '([^=']+)=(.*?)'\s", text):
        return f"{match[1]}={match[2]} are several values: add -m to run each, or quote them as one text: {_quoted(*match.groups())}"
    if "Config group override must be a string" in text:
        return "a config group takes one of its options, not null (logger=none, say)"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return re.sub(r"\s+", " ", str(error)).strip()
    if "parameters that were not used in producing the loss" in text:
        return (
            "some parameters get no gradient (augmented vectors: model.augment_gradient=mimic with a lambda of 0), and several "
            "processes wait for it: set trainer.strategy=ddp_find_unused_parameters_true"
        )
    if "can't allocate memory" in text or any(
        type(link).__name__ in ("MemoryError", "OutOfMemoryError") for link in chain
    ):
        return "no memory left: lower model.dim, data.batch_size, negatives.num or data.eval_batch_size"
    if "PytorchStreamWriter failed" in text or "No space left" in text:
        return "a file could not be written, probably for want of space: free some in paths.output_dir and paths.cache_dir"
    for link in chain:
        if isinstance(link, OSError) and not isinstance(link, ChildProcessError):
            where = f" {link.filename}:" if link.filename else ""
            return (
                f"{where} {link.strerror or link}".strip()
                + f" (check {_setting_of(link.filename)} and its permissions)"
            )
    return None


def _cause(error: BaseException) -> BaseException | None:
    """OmegaConf raises anew, without ``from``, what a resolver has raised."""
    return error.__context__ if isinstance(error, InterpolationResolutionError) else error.__cause__


def _setting_of(filename: Any) -> str:
    """The setting that a file's place comes from: of the command line, or one of the usual folders."""
    usual = {
        f"paths.{name}_dir": os.environ.get(f"TWOTOWER_{name.upper()}_DIR", default)
        for name, default in (("output", "outputs"), ("cache", "cache"), ("data", "data"))
    }
    given = dict(text.split("=", 1) for text in sys.argv[1:] if "=" in text)
    place = Path(str(filename)).absolute()
    for name, value in {**usual, **given}.items():
        folder = Path(value.strip("\"'")).absolute()
        if value and (place.is_relative_to(folder) or folder.is_relative_to(place)):
            return name.lstrip("+")
    return "the folder in paths.*"


def _suggest_setting(name: str) -> str:
    """The closest key of the whole configuration, found in the YAML files."""
    keys = {
        key
        for file in CONF.rglob("*.yaml")
        for key in re.findall(r"^\s*([a-z]\w*):", file.read_text(), re.M)
    }
    *parents, leaf = name.split(".")
    roots = set() if parents else {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    close = difflib.get_close_matches(leaf, roots, n=1) or difflib.get_close_matches(
        leaf, keys - {leaf}, n=1
    )
    return f" (did you mean {'.'.join([*parents, close[0]])}?)" if close else ""


def _quiet() -> None:
    """Keep the libraries' hints off the screen; their errors stay."""
    for name in (
        "pytorch_lightning",
        "lightning.pytorch",
        "lightning_fabric",
        "pytorch_lightning.utilities.rank_zero",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")


def _fail(line: str) -> NoReturn:
    PlainConsole(stderr=True, soft_wrap=True).print(
        Text.assemble(("error:", "bold red"), f" {line}")
    )
    sys.exit(1)
