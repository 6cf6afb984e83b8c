"""The frame of every script: composes the config, and turns errors into one clear line."""

import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from rich.text import Text

from twotower import signals
from twotower.errors import UserError
from twotower.processes import wait_without_spinning
from twotower.run.checkpoint.file import checkpoint_file
from twotower.run.checks.checks import check_config
from twotower.run.command_line import check_arguments, explain_config, with_folder_of_search
from twotower.run.commands import COMMANDS
from twotower.run.conf import CONF
from twotower.run.environment import read_env_file
from twotower.run.help import show_help, topics
from twotower.run.raw_ids import quote_ids
from twotower.run.run_folder import RunFolder
from twotower.wording import PlainConsole, one_line

DEBUG = "HYDRA_FULL_ERROR"


def command(name: str, arguments: list[str]) -> None:
    """Run a command with the composed config.

    The module of its function is imported once the config is composed: torch and Lightning take
    seconds, which ``--help`` and a typo need not.

    An error that the user can correct ends with one line on standard error and exit code 1;
    ``HYDRA_FULL_ERROR=1`` shows the traceback. Any other error is a bug and keeps its traceback.
    SIGTERM and Ctrl-C end with a line too, see :mod:`twotower.signals`.

    Args:
        name: one of ``COMMANDS``, and of the files of ``conf/``.
        arguments: of the command line: settings and Hydra's options.
    """
    if name == "report" and arguments[:1] == ["list"]:
        name, arguments = "list", arguments[1:]
    if name == "recommend":
        arguments = quote_ids(arguments)
    if name == "train":
        arguments = with_folder_of_search(arguments)
    signals.listen()
    wait_without_spinning()
    given = os.environ.get(DEBUG, "")
    os.environ[DEBUG] = "1"  # Hydra raises instead of printing
    _quiet()
    failures: list[Exception] = []

    def job(config: DictConfig) -> Any:
        _quiet()  # again where a launcher has started a process
        os.environ[DEBUG] = given  # as the user has set it
        try:
            check_config(config)
            if config.get("ckpt_path") is not None:
                resumes = "dry" in config  # the command trains
                config.ckpt_path = str(checkpoint_file(config.ckpt_path, resumes))
            function = COMMANDS[name].function
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                function = COMMANDS[name].in_sweep or function
            module, _, last = function.rpartition(".")
            called = getattr(importlib.import_module(module), last)
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
        names = topics(arguments)
        if names is not None:
            show_help(name, names)
            return
        check_arguments(name, arguments)
        read_env_file()
        # hydra.main reads sys.argv, which has the command's name too, and with which Lightning
        # starts further processes
        version.setbase("1.3")
        parser = get_args_parser()
        _run_hydra(parser.parse_args(arguments), parser, job, str(CONF), name)
        if failures:
            raise failures[0]
    except Exception as error:
        if signum := signals.asked():  # such as a process whose partner has stopped before it
            sys.exit(signals.finish(signum))
        line = explain(error, name, arguments)
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
    """A resumed run continues in its own folder: that of its checkpoint.

    Raises:
        UserError: if there is no such file, before Hydra makes a folder for it.
    """
    if ckpt_path is None:
        return default
    return str(RunFolder.of(checkpoint_file(ckpt_path, resumes=True)).path)


def mode(dry: bool) -> str | None:
    """A dry run is Hydra's multirun of one job: a single run would make its folder first.

    Raises:
        UserError: if it is neither true nor false.
    """
    if not isinstance(dry, bool):
        raise UserError(f"dry must be true or false, got {dry!r}")
    return "MULTIRUN" if dry else None


# not in command(): processes of a launcher import this module before they compose a config
for resolver in (run_dir, mode):
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def explain(
    error: BaseException, command: str = "train", arguments: Sequence[str] = ()
) -> str | None:
    """One line for an error that the user can correct, None for a bug.

    Args:
        error: as it was raised.
        command: a file of ``conf/``.
        arguments: of the command line.
    """
    chain = [error]
    while (cause := _cause(chain[-1])) is not None:
        chain.append(cause)
    names = {type(link).__name__ for link in chain}
    text = one_line(" ".join(map(str, chain)))
    if "tensorboard" in text and "ModuleNotFoundError" in names:
        return (
            "logger=tensorboard needs a package that is not installed: "
            "pip install 'twotower[tensorboard]'"
        )
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
    if "MisconfigurationException" in names:  # Lightning's, which may not be imported yet
        return one_line(chain[-1])
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return explain_config(command, error, text, arguments)
    if "Config group override must be a string" in text:  # Hydra's, a ValueError
        return "a config group takes one of its options, not null (logger=none, say)"
    if "parameters that were not used in producing the loss" in text:
        return (
            "some parameters get no gradient (augmented vectors: model.augment_gradient=mimic "
            "with a lambda of 0), and several processes wait for it: set "
            "trainer.strategy=ddp_find_unused_parameters_true"
        )
    if "can't allocate memory" in text or names & {"MemoryError", "OutOfMemoryError"}:
        return (
            "no memory left: lower model.dim, data.batch_size, negatives.num or "
            "data.eval_batch_size"
        )
    for link in chain:
        if isinstance(link, OSError) and not isinstance(link, ChildProcessError):
            file = f"{link.filename}: " if link.filename else ""
            return f"{file}{link.strerror or link} (check the folders in paths.* and permissions)"
    return None


def failure_line(error: Exception) -> str:
    """One line for ``failed.json``, of any error."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, ChildProcessError):  # its message is the line of the run's own process
        return first
    return explain(error) or f"{type(error).__name__}: {first}"


def _cause(error: BaseException) -> BaseException | None:
    """OmegaConf raises anew, without ``from``, what a resolver has raised."""
    return error.__context__ if isinstance(error, InterpolationResolutionError) else error.__cause__


def _quiet() -> None:
    """Keep the libraries' hints off the screen; their errors stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)


def _fail(line: str) -> NoReturn:
    console = PlainConsole(stderr=True, soft_wrap=True)
    console.print(Text.assemble(("error:", "bold red"), f" {line}"))
    sys.exit(1)
