"""A W&B logger that falls back to offline logging and never stops or delays a run."""

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from twotower.errors import UserError, check_number
from twotower.files import write_text
from twotower.training.fused import lockstep
from twotower.wording import PlainConsole, clip, shown_path, warn

KEY = "WANDB_API_KEY in the environment or in .env, or `wandb login`"
REFUSED = re.compile(r"returned error (40[0134]\b.*)")
INTERRUPTED = 255  # W&B shows such a run as killed
_open = threading.local()  # its run: the one of this thread


class RunWandbLogger(WandbLogger):
    """Logs a run to W&B, or into its folder for ``wandb sync`` where W&B cannot be reached.

    Args:
        save_dir: the run folder; W&B's files go to ``<save_dir>/wandb``.
        project: of the runs.
        entity: user or team; None: the key's default.
        name: of the run; None: the group with the seed.
        group: None: a name such as ``dat movielens_1m lambda3=0``, without the seed, so that W&B
            can average over seeds.
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
        own: dict[str, Any] = {
            "project": project,
            "entity": entity or None,
            "group": group,
            "tags": tags,
        }
        super().__init__(name, save_dir, offline=offline, **own)
        del self._wandb_init["anonymous"]  # W&B no longer has this setting and warns of it
        self.init_timeout = init_timeout
        self.finish_timeout = finish_timeout
        self.has_failed = False

    @rank_zero_only
    def begin(self, group: str, tags: list[str], config: dict[str, Any], *, resumed: bool) -> None:
        """Start the W&B run before data are prepared, so that W&B shows runs that fail there.

        Args:
            group: the run's settings without its seed; the run's name adds the seed.
            tags: of the run, before those of the logger's settings.
            config: settings by dotted names, ``seed`` among them.
            resumed: continue the W&B run of this folder.

        Raises:
            UserError: if W&B refuses the key or the project.
        """
        self._wandb_init["group"] = self._wandb_init["group"] or group
        self._wandb_init["name"] = self._wandb_init["name"] or f"{group} seed={config['seed']}"
        self._wandb_init["tags"] = [*tags, *self._wandb_init["tags"]]
        self._wandb_init["config"] = config
        run_id = Path(self._wandb_init["dir"]) / "wandb" / "run_id"
        if resumed and run_id.exists():
            self._wandb_init["id"] = run_id.read_text()
        run = self.experiment
        if not run.disabled:
            write_text(run_id, run.id)

    @rank_zero_only
    def add_settings(self, settings: dict[str, Any]) -> None:
        """Set values by dotted names that were not known when the run began."""
        with self._failing_once():
            self.experiment.config.update(settings, allow_val_change=True)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; the first call starts it."""
        if self._experiment is None:
            self._experiment = self._start()
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        with self._failing_once():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_results(
        self,
        columns: list[str | int],
        rows: list[list[Any]],
        summary: dict[str, float | None],
        plots: Path,
    ) -> None:
        """Log the run's table and plots, and add to its summary.

        Args:
            columns: of the table.
            rows: of the table.
            summary: values by name, such as the validation metrics of the chosen epoch.
            plots: folder of PNG files; may be missing.
        """
        with self._failing_once():
            import wandb

            run = self.experiment
            images = {f"plots/{path.stem}": path for path in sorted(plots.glob("*.png"))}
            run.log({name: wandb.Image(str(path)) for name, path in images.items()})
            run.summary.update(summary)
            # a table asks the server, and waits 20 s and more if that does not answer
            if run.offline or self._why_unreachable() is None:
                run.log({"results": wandb.Table(columns=columns, data=rows)})

    @contextmanager
    def _failing_once(self) -> Iterator[None]:
        """Turn the first error of W&B inside into a warning, and all later ones into nothing."""
        try:
            yield
        except Exception as error:
            if not self.has_failed:
                reason = f"{type(error).__name__} ({clip(str(error), 300)})"
                warn(f"W&B fails with {reason}, and the run continues without it")
            self.has_failed = True

    def _start(self) -> Any:
        """Start the run online if possible, else offline.

        Raises:
            UserError: if W&B refuses the key or the project.
        """
        import wandb

        mode = "offline" if self._offline else _mode()
        if mode != "online":
            return self._open(mode)
        reason = self._why_unreachable() if _has_key() else f"there is no key ({KEY})"
        if reason is None:
            try:
                return self._open(mode)
            except wandb.errors.AuthenticationError as error:
                line = f"W&B cannot use the key: {clip(str(error), 300)}"
                raise UserError(f"{line} Set {KEY}, or logger.offline=true") from None
            except wandb.errors.CommError as error:
                if match := REFUSED.search(str(error)):
                    raise UserError(
                        f"{_server()} refused the run with error {match[1]}: check WANDB_API_KEY, "
                        "logger.entity and logger.project, or set logger.offline=true"
                    ) from None
                reason = f"{_server()} did not take the run: {clip(str(error), 300)}"
                # the failed attempt keeps its id for as long as this process runs
                self._wandb_init["id"] = None
        return self._open("offline", reason)

    def _open(self, mode: str, reason: str | None = None) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=self.init_timeout,
            finish_timeout=self.finish_timeout,
            finish_timeout_raises=True,
            silent=True,
        )
        own = {"mode": mode, "resume": "allow" if mode == "online" else None}
        if lockstep.current() is not None:
            own["reinit"] = "create_new"  # beside the runs that are trained together with it
        run = _open.run = wandb.init(**self._wandb_init | own, settings=settings)
        sync = f"wandb sync {_folder(run)} sends the run later"
        if mode == "online":
            PlainConsole(stderr=True, soft_wrap=True).print(f"W&B: {run.url}")
        elif reason:
            warn(f"W&B is offline: {reason}; {sync}")
        elif mode == "offline":
            PlainConsole(stderr=True, soft_wrap=True).print(f"W&B is offline; {sync}")
        return run

    def _why_unreachable(self) -> str | None:
        """Why the server does not answer, None if it does. W&B itself would try for a long time."""
        try:
            code = requests.head(_server(), timeout=self.init_timeout).status_code
        except requests.Timeout:
            return f"{_server()} did not answer within {self.init_timeout:g} s"
        except requests.RequestException:
            return f"{_server()} cannot be reached"
        return f"{_server()} answers with error {code}" if code >= 500 else None


@contextmanager
def closing_wandb() -> Iterator[None]:
    """End the W&B run that is started inside, with its exit code.

    Jobs of a sweep in one process would otherwise share a run.
    """
    code = 1
    try:
        yield
        code = 0
    except (KeyboardInterrupt, SystemExit):  # SIGINT, and SIGTERM as agents send it
        code = INTERRUPTED
        raise
    finally:
        run, _open.run = getattr(_open, "run", None), None
        if run is not None:
            _finish(run, code)


def _finish(run: Any, code: int) -> None:
    """Send what is left; if that fails, say how to send it later."""
    import wandb

    try:
        run.finish(exit_code=code)
        return
    except TimeoutError:
        reason = "not all was sent in time"
    except Exception as error:
        reason = clip(str(error), 300)
        wandb.run = None  # the next job gets a client of its own
        with suppress(Exception):
            wandb.teardown()
    warn(f"W&B: {reason}; wandb sync --include-online {_folder(run)} sends the run later")


def _mode() -> str:
    """The mode that WANDB_MODE or `wandb offline` ask for.

    Raises:
        UserError: for environment variables that W&B cannot read.
    """
    import wandb

    try:
        return str(wandb.setup(wandb.Settings(show_info=False)).settings.mode)
    except (ValueError, wandb.Error) as error:
        reason = clip(str(error), 300)
        raise UserError(f"one of the WANDB_ environment variables is wrong: {reason}") from None


def _server() -> str:
    import wandb

    return str(wandb.setup().settings.base_url)


def _has_key() -> bool:
    """Is there a key in the environment, in the session, or where `wandb login` puts it?"""
    import wandb

    in_session = os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or wandb.setup().settings.api_key
    return bool(in_session or requests.utils.get_netrc_auth(_server()))


def _folder(run: Any) -> str:
    """The folder of the run's W&B files."""
    return shown_path(Path(run.dir).parent)
