"""W&B as a logger that no missing key, dead network or slow server can stop or hold up."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only
from rich.text import Text

from twotower.errors import UserError, check_number
from twotower.files import read_bytes, write_text
from twotower.wording import PlainConsole

KEY = "WANDB_API_KEY in the environment or in .env, or `wandb login`"
REFUSED = re.compile(r"returned error (40[0134]\b.*)")
PLAUSIBLE = re.compile(r"[\w.-]{40,}")
RUN_ID = re.compile(r"[\w-]{1,128}")
INTERRUPTED = 255  # W&B shows such a run as killed
MAX_ID = 1000  # bytes


class RunWandbLogger(WandbLogger):
    """Logs a run to W&B; where that cannot be done, into its folder, for ``wandb sync`` to send later.

    Args:
        save_dir: the run folder; W&B's files go to ``<save_dir>/wandb``.
        project: of the runs.
        entity: user or team; None: the key's default.
        name: of the run; None: what tells it apart, such as ``dat movielens_1m lambda3=0 seed=1``.
        group: None: the name without the seed, so that W&B can average over seeds.
        tags: besides model and data set.
        offline: ask for no key and no network.
        init_timeout: seconds that the server may take to answer at the start.
        finish_timeout: seconds that uploads may take at the end.
    """

    def __init__(
        self,
        save_dir: str,
        project: str,
        entity: str | None,
        name: str | None,
        group: str | None,
        tags: list[str],
        offline: bool,
        init_timeout: float,
        finish_timeout: float,
    ) -> None:
        if not save_dir:
            raise UserError("logger.save_dir must be a folder, got ''")
        check_number("logger.init_timeout", init_timeout, 1)
        check_number("logger.finish_timeout", finish_timeout, 1)
        super().__init__(
            name,
            save_dir,
            offline=offline,
            project=project,
            entity=entity or None,
            group=group,
            tags=tags,
        )
        del self._wandb_init["anonymous"]  # which W&B dropped, and warns of
        self.init_timeout = init_timeout
        self.finish_timeout = finish_timeout
        self.lost = False

    @rank_zero_only
    def begin(self, group: str, tags: list[str], config: dict[str, Any], *, resumed: bool) -> None:
        """Start the W&B run before anything is prepared, so that a run that fails is seen to fail.

        Args:
            group: what the run computes, but for its seed; with the seed it is the run's name.
            tags: of the run, beside those of the config.
            config: settings by dotted names, ``seed`` among them.
            resumed: go on with the W&B run of this folder.

        Raises:
            UserError: if W&B refuses the key or the project.
        """
        self._wandb_init["group"] = self._wandb_init["group"] or group
        self._wandb_init["name"] = self._wandb_init["name"] or f"{group} seed={config['seed']}"
        self._wandb_init["tags"] = [*tags, *self._wandb_init["tags"]]
        self._wandb_init["config"] = config
        record = Path(self._wandb_init["dir"]) / "wandb" / "run_id"
        if resumed and record.exists():
            with suppress(OSError, ValueError):  # a damaged one: another run of W&B's, then
                if match := RUN_ID.fullmatch(read_bytes(record, MAX_ID).decode().strip()):
                    self._wandb_init["id"] = match[0]
        run = self.experiment
        if not run.disabled:
            write_text(record, run.id)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started where there is none yet."""
        if self._experiment is None:
            self._experiment = self._start()
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        self._send(lambda: WandbLogger.log_metrics(self, metrics, step))

    @rank_zero_only
    def log_results(
        self,
        columns: list[str | int],
        rows: list[list[Any]],
        summary: dict[str, float | None],
        plots: Path,
    ) -> None:
        """The run's table and plots, and into the summary what no last epoch stands for.

        Args:
            columns: of the table.
            rows: of the table.
            summary: values by name, such as the validation metrics of the epoch that was chosen.
            plots: folder of PNG files; may be missing.
        """
        self._send(lambda: self._log_results(columns, rows, summary, plots))

    def _log_results(
        self,
        columns: list[Any],
        rows: list[list[Any]],
        summary: dict[str, float | None],
        plots: Path,
    ) -> None:
        import wandb

        run = self.experiment
        run.log(
            {f"plots/{path.stem}": wandb.Image(str(path)) for path in sorted(plots.glob("*.png"))}
        )
        run.summary.update(summary)
        if (
            run.offline or self._reason_of_silence() is None
        ):  # a table asks the server, for 20 s and more where there is none
            run.log({"results": wandb.Table(columns=columns, data=rows)})

    def _send(self, log: Callable[[], None]) -> None:
        """W&B's process may die, or refuse what it is given; the run goes on without it."""
        if self.lost:
            return
        try:
            log()
        except Exception as error:
            self.lost = True
            _say(
                f"W&B fails with {type(error).__name__} ({_line(error)}), and the run goes on without it",
                warning=True,
            )

    def _start(self) -> Any:
        """Online if that can be, else offline."""
        import wandb

        mode = "offline" if self._offline else _mode()
        if mode != "online":
            return self._open(mode, "")
        reason = f"there is no key ({KEY})" if not _has_key() else self._reason_of_silence()
        if reason is None:
            try:
                return self._open("online", "")
            except wandb.errors.AuthenticationError as error:
                raise UserError(
                    f"W&B cannot use the key: {_line(error)} Set {KEY}, or logger.offline=true"
                ) from None
            except wandb.errors.CommError as error:
                if match := REFUSED.search(str(error)):
                    raise UserError(
                        f"{_server()} refused the run with error {match[1]}: check WANDB_API_KEY, logger.entity and "
                        "logger.project, or set logger.offline=true"
                    ) from None
                reason = f"{_server()} did not take the run: {_line(error)}"
                self._wandb_init["id"] = (
                    None  # the attempt holds its id as long as this process lives
                )
        return self._open("offline", reason)

    def _open(self, mode: str, reason: str) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=self.init_timeout,
            finish_timeout=self.finish_timeout,
            finish_timeout_raises=True,
            silent=True,
        )
        resume = "allow" if mode == "online" else None
        run = wandb.init(
            **{**self._wandb_init, "mode": mode, "resume": resume, "settings": settings}
        )
        if mode == "online":
            _say(f"W&B: {run.url}")
        elif mode == "offline":
            _say(
                f"W&B is offline{': ' if reason else ''}{reason}; wandb sync {_folder(run)} sends the run later",
                bool(reason),
            )
        return run

    def _reason_of_silence(self) -> str | None:
        """Why the server does not answer, None if it does: the client itself would try for a long time."""
        try:
            code = requests.head(_server(), timeout=self.init_timeout).status_code
        except requests.RequestException as error:
            slow = isinstance(error, requests.Timeout)
            return f"{_server()} {f'did not answer within {self.init_timeout:g} s' if slow else 'cannot be reached'}"
        return f"{_server()} answers with error {code}" if code >= 500 else None


@contextmanager
def closing_wandb() -> Iterator[None]:
    """End the W&B run that is started inside, with its exit code: the jobs of a sweep in one process must not share a run."""
    code = 1
    try:
        yield
        code = 0
    except (
        KeyboardInterrupt,
        SystemExit,
    ):  # Lightning ends with the latter on SIGINT, and on SIGTERM, as agents stop a run
        code = INTERRUPTED
        raise
    finally:
        run = sys.modules["wandb"].run if "wandb" in sys.modules else None
        if run is not None:
            _finish(run, code)


def _mode() -> str:
    """What WANDB_MODE or `wandb offline` ask for.

    Raises:
        UserError: for environment variables that W&B cannot read.
    """
    import wandb

    try:
        mode = wandb.setup(wandb.Settings(show_info=False)).settings.mode
    except (ValueError, wandb.Error) as error:
        raise UserError(
            f"one of the WANDB_ environment variables is wrong: {' '.join(str(error).split())}"
        ) from None
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


def _server() -> str:
    import wandb

    return str(wandb.setup().settings.base_url)


def _has_key() -> bool:
    """Is there a key in the environment, in the session, or where `wandb login` puts it?

    Raises:
        UserError: if the environment's cannot be one; the message does not tell it.
    """
    import wandb

    key = os.environ.get("WANDB_API_KEY", "")
    if key and not PLAUSIBLE.fullmatch(key):
        raise UserError(
            f"WANDB_API_KEY is no W&B key ({len(key)} characters; keys have 40 or more letters, digits, _ and -): copy it again, "
            "or set logger.offline=true"
        )
    in_session = os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or wandb.setup().settings.api_key
    return bool(key or in_session or requests.utils.get_netrc_auth(_server()))


def _finish(run: Any, code: int) -> None:
    """A run that cannot be sent must not fail: its files stay."""
    import wandb

    why = None
    try:
        run.finish(exit_code=code)
    except TimeoutError:
        why = "not all was sent in time"
    except Exception as error:
        why = _line(error)
        wandb.run = None  # the next job gets a client of its own
        with suppress(Exception):
            wandb.teardown()
    if why:
        _say(
            f"W&B: {why}; wandb sync --include-online {_folder(run)} sends the run later",
            warning=True,
        )


def _folder(run: Any) -> str:
    """Of the run's W&B files, as short as it can be said."""
    folder = Path(run.dir).parent
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _say(line: str, warning: bool = False) -> None:
    console = PlainConsole(stderr=True, soft_wrap=True)
    mark = Text("warning: ", style="bold yellow") if warning else Text("")
    console.print(Text.assemble(mark, line))
