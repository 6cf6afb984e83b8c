"""A sweep that goes on where it stopped. Hydra looks for plugins in this namespace alone, and imports them at every start."""

import os
import signal
from itertools import chain
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict


class ResumableSweeper(BasicSweeper):
    """Hydra's cartesian product, in a folder that a second start finds again: finished runs are skipped, the others go on.

    Args:
        max_batch_size: how many jobs are handed to the launcher at a time, None for all.
        params: what is swept unless the command line says otherwise.
    """

    def setup(self, *, config: DictConfig, **context: Any) -> None:
        """Fix the sweep's folder, before the launcher derives its own from it."""
        from twotower.sweep.plan import quoted, sweep_name

        swept = {
            o.key_or_group: str(o.input_line).split("=", 1)[1]
            for o in self._parse(config)
            if o.is_sweep_override()
        }
        known = config.hydra.overrides.hydra
        self._elsewhere = ["data"]  # keys that the folder's name tells
        if any(text.startswith("hydra.sweep.dir=") for text in known):
            self._elsewhere = []
        else:
            choices = config.hydra.runtime.choices
            name = sweep_name(choices.get("sweep"), swept, choices["data"])
            with open_dict(config.hydra):
                config.hydra.sweep.dir = str(
                    Path(config.paths.output_dir, "sweeps", name).absolute()
                )
                known.append(
                    f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}"
                )  # each job composes its config anew
        super().setup(config=config, **context)

    def sweep(self, arguments: list[str]) -> None:
        """Run what is not done yet, or with ``dry=true`` show it.

        Raises:
            UserError: for one run under two names, and at the end if a run did not finish.
        """
        from twotower.sweep.plan import refuse_twins
        from twotower.sweep.tables import print_outcome, print_plan

        assert self.config is not None
        runs = self._plan()
        refuse_twins(runs)
        if self.config.dry:
            print_plan(runs, Path(self.config.paths.output_dir), self._at_once())
            return
        self._run(runs)
        print_outcome(runs, self.config.callbacks.best.monitor.split("/")[-1])
        self._raise_if_unfinished(runs)

    def _parse(self, config: DictConfig) -> list[Override]:
        """The sweep's own parameters, then the command line's, which win."""
        texts = [*self._parse_config(), *config.hydra.overrides.task]
        return list(
            {o.key_or_group: o for o in OverridesParser.create().parse_overrides(texts)}.values()
        )

    def _plan(self) -> list[Any]:
        """Every run of the sweep; composing them all finds mistakes before the first one starts."""
        from twotower.run.checks.checks import check_config
        from twotower.run.settings import fingerprint, key_of
        from twotower.sweep.plan import Run, refuse_axes, run_name

        assert self.config is not None and self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = self._parse(self.config)
        varied = [key_of(o.key_or_group) for o in overrides if o.is_sweep_override()]
        refuse_axes(varied)
        overrides = [o for o in overrides if o.key_or_group != "dry"]
        folder = Path(self.config.hydra.sweep.dir)
        runs = []
        for job in chain(*self.split_arguments(overrides, None)):
            config = loader.load_sweep_config(self.config, list(job))
            choices = config.hydra.runtime.choices
            with open_dict(config):
                config.pop("hydra")
            check_config(config)
            place = folder / run_name(job, self._elsewhere, varied)
            runs.append(
                Run(list(job), place, fingerprint(config), choices["model"], choices["data"])
            )
        return runs

    def _run(self, runs: list[Any]) -> None:
        from twotower import signals
        from twotower.files import write_text
        from twotower.sweep.plan import quoted
        from twotower.sweep.tables import print_start
        from twotower.wording import masked

        assert self.config is not None and self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "multirun.yaml", masked(OmegaConf.to_yaml(self.config)))
        print_start(runs)
        for run in runs:
            if run.status == "done":
                print(f"{run.folder.name}: already done", flush=True)
            elif run.status == "changed":
                with run.place.alone():
                    if run.status == "changed":  # still, once the lock is ours
                        moved = run.place.set_aside()
                        print(
                            f"{run.folder.name}: held a run of another config, now in {moved}",
                            flush=True,
                        )
        source = str(
            Path(__file__).parents[1]
        )  # a launcher's processes know nothing of src/train.py's path
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        todo = [
            [*run.overrides, f"hydra.sweep.subdir={quoted(run.folder.name)}"]
            for run in runs
            if run.status != "done"
        ]
        with signals.running():
            self._launch(todo)

    def _launch(self, todo: list[list[str]]) -> None:
        """Hand the runs to the launcher. A signal ends its processes, which save what they have."""
        from twotower import processes, signals
        from twotower.run.cli import explain

        assert self.launcher is not None
        signals.on_stop(hint=lambda: "the same command goes on")
        apart = not isinstance(
            self.launcher, BasicLauncher
        )  # are runs in processes of the launcher's?
        if apart:
            signals.defer(
                lambda signum: processes.send(processes.descendants(os.getpid()), signal.SIGTERM)
            )
        options = getattr(self.launcher, "joblib", None)
        if isinstance(options, dict):
            # the workers of a killed sweep would train its next runs, then wait for minutes or for ever
            options.update(initializer=processes.end_with, initargs=(os.getpid(),))
        size = self.max_batch_size or len(todo) or 1
        try:
            for start in range(0, len(todo), size):
                self.launcher.launch(todo[start : start + size], initial_job_idx=start)
        except Exception as error:  # a launcher's process died: what it did is in the folders
            if not signals.asked():
                print(
                    f"the launcher gave up: {explain(error) or f'{type(error).__name__}: {error}'}",
                    flush=True,
                )
        finally:
            signals.defer(None)
            if apart and signals.asked():
                processes.end(processes.descendants(os.getpid()))
        signals.raise_if_asked()

    def _raise_if_unfinished(self, runs: list[Any]) -> None:
        from twotower.errors import UserError

        missing = sum(run.status != "done" for run in runs)
        if missing:
            raise UserError(
                f"{missing} of {len(runs)} runs did not finish; the same command goes on with them"
            )

    def _at_once(self) -> int:
        assert self.config is not None
        jobs = int(self.config.hydra.launcher.get("n_jobs") or 1)
        return jobs if jobs > 0 else os.cpu_count() or 1
