"""A sweep that continues where it stopped. Hydra finds plugins in this namespace alone.

Hydra imports this module at every start, so modules that import torch are imported when needed.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from twotower import processes, signals
from twotower.errors import UserError
from twotower.files import write_text
from twotower.sweep.fused_plan import OTHERS_DONE, Pass
from twotower.sweep.plan import (
    OF_CONFIRM,
    OF_SEARCH,
    Run,
    quoted,
    refuse_axes,
    refuse_twins,
    run_name,
    sweep_name,
)
from twotower.sweep.tables import (
    continue_with,
    how_to_continue,
    print_outcome,
    print_plan,
    print_start,
)
from twotower.sweep.watch import watching
from twotower.wording import masked

SOURCE = str(Path(__file__).parents[1])
WIDEST = 8  # trials of a variant that a search asks for at a time, unless a setting says otherwise


class ResumableSweeper(BasicSweeper):
    """Hydra's cartesian product in a fixed folder: finished runs are skipped, others go on.

    Args:
        max_batch_size: how many jobs are handed to the launcher at a time, None for all.
        params: what is swept unless the command line says otherwise.
    """

    config: DictConfig  # set by setup(), like the next two
    launcher: Launcher
    hydra_context: HydraContext

    def setup(self, *, config: DictConfig, **context: Any) -> None:
        """Fix the sweep's folder, before the launcher derives its own from it."""
        known = config.hydra.overrides.hydra
        self._in_folder_name: list[str] = []  # keys that runs need not have in their names
        if not any(text.startswith("hydra.sweep.dir=") for text in known):
            self._in_folder_name = ["data"]
            swept = {
                override.key_or_group: str(override.input_line).split("=", 1)[1]
                for override in self._parse(config)
                if override.is_sweep_override()
            }
            choices = config.hydra.runtime.choices
            name = sweep_name(choices.get("sweep"), swept, choices["data"])
            if config.get("searched"):
                name = f"confirm-{Path(config.searched).resolve().name}"
                self._in_folder_name = []  # searches of two data sets may have the same name
            folder = str(Path(config.paths.output_dir, "sweeps", name).absolute())
            with open_dict(config.hydra):
                config.hydra.sweep.dir = folder
                # each job composes its config anew
                known.append(f"hydra.sweep.dir={quoted(folder)}")
        super().setup(config=config, **context)

    def sweep(self, arguments: list[str]) -> None:
        """Run what is not done yet, or with ``dry=true`` show it.

        Raises:
            UserError: for two runs of one config, and at the end if a run did not finish.
        """
        if "search" in self.config:
            self._search()
            return
        runs = self._plan()
        refuse_twins(runs)
        if self.config.dry:
            output_dir = Path(self.config.paths.output_dir)
            print_plan(runs, output_dir, self._at_once(), self._passes(runs, prepares=False))
            return
        self._run(runs)
        monitor = OmegaConf.select(self.config, "callbacks.best.monitor") or "ndcg@10"
        print_outcome(runs, monitor.split("/")[-1])
        missing = sum(run.status != "done" for run in runs)
        if missing:
            raise UserError(
                f"{missing} of {len(runs)} runs did not finish; "
                "the same command continues with them"
            )

    def _parse(self, config: DictConfig) -> list[Override]:
        """The sweep's own parameters, then the command line's, which replace them."""
        texts = [*self._parse_config(), *config.hydra.overrides.task]
        overrides = OverridesParser.create().parse_overrides(texts)
        return list({override.key_or_group: override for override in overrides}.values())

    def _plan(self) -> list[Run]:
        """Every run of the sweep, composed, so that mistakes show before the first one starts."""
        jobs, varied = self._jobs()
        return [self._composed(job, run_name(job, self._in_folder_name, varied)) for job in jobs]

    def _jobs(self) -> tuple[list[list[str]], list[str]]:
        """The overrides of each run, and the settings that are varied."""
        from twotower.run.settings import key_of

        overrides = self._parse(self.config)
        varied = [key_of(o.key_or_group) for o in overrides if o.is_sweep_override()]
        refuse_axes(varied)
        overrides = [override for override in overrides if override.key_or_group != "dry"]
        (jobs,) = self.split_arguments(overrides, None)
        if "searched" not in self.config:
            return jobs, varied
        from twotower.sweep.confirm import confirming_jobs

        refuse_axes([*(key_of(text) for text in jobs[0]), *varied], OF_CONFIRM)
        refuse_axes(varied, dict.fromkeys(varied, "sweep=confirm varies variants and seeds alone"))
        axes = ["seed", "model", "variant"]
        place = Path(self.config.hydra.sweep.dir)
        return confirming_jobs(self.config.searched, place, self.config.seeds, jobs[0]), axes

    def _composed(self, job: list[str], name: str) -> Run:
        """A run of its overrides, in a folder of this name, checked."""
        from twotower.run.checks.checks import check_config
        from twotower.run.settings import fingerprint

        config = self.hydra_context.config_loader.load_sweep_config(self.config, job)
        choices = config.hydra.runtime.choices
        with open_dict(config):
            config.pop("hydra")
        check_config(config)
        place = Path(self.config.hydra.sweep.dir) / name
        names = (choices["model"], choices["data"])
        return Run(job, place, fingerprint(config), *names, config, dict(choices))

    def _search(self) -> None:
        """Search the best setting of each variant, or with ``dry=true`` show the plan."""
        from twotower.sweep.candidates import candidate, check_together, label_of
        from twotower.sweep.search import Search
        from twotower.sweep.search_tables import print_search_outcome, print_search_plan

        jobs, varied = self._jobs()
        refuse_axes(varied, OF_SEARCH)
        loader, command = self.hydra_context.config_loader, str(self.config.hydra.job.config_name)
        candidates = []
        for job in jobs:
            base = self._composed(job, "base")
            candidates.append(candidate(label_of(base, varied), base, loader, command))
        refuse_twins([one.base for one in candidates], varied)
        check_together(candidates)
        search = Search(
            Path(self.config.hydra.sweep.dir),
            self.config,
            candidates,
            width=self._width(),
            of_one_shape=hasattr(self.launcher, "passes"),
            compose=self._composed,
            launch=self._train,
        )
        search.check()
        if self.config.dry:
            print_search_plan(search, Path(self.config.paths.output_dir), self._at_once())
            return
        signals.on_stop(hint=continue_with)
        search.run(self._begin)
        print_search_outcome(search)

    def _width(self) -> int:
        """How many trials of a variant are asked for at a time."""
        if self.config.trials_at_once is not None:
            return int(self.config.trials_at_once)
        launcher = self.config.hydra.launcher
        if hasattr(self.launcher, "passes"):
            return int(launcher.max_runs or WIDEST)
        return min(int(launcher.get("array_parallelism") or self._at_once()), WIDEST)

    def _run(self, runs: list[Run]) -> None:
        self._begin()
        print_start(runs)
        signals.on_stop(hint=lambda: how_to_continue(runs))
        self._train(runs)

    def _begin(self) -> None:
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "multirun.yaml", masked(OmegaConf.to_yaml(self.config)))
        # new processes do not have the path of src/train.py
        path = [SOURCE, os.environ.get("PYTHONPATH")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))

    def _train(self, runs: list[Run], ended: Callable[[], None] | None = None) -> None:
        """Train what is not done yet of these runs; ``ended`` is called whenever one has ended."""
        todo: dict[int, list[str]] = {}  # overrides of a job, by its place
        for place, run in enumerate(runs):
            name = run.folder.name
            if run.status == "done":
                print(f"{name}: already done", flush=True)
                continue
            if run.status == "changed":
                self._set_aside(run)
            todo[place] = [*run.overrides, f"hydra.sweep.subdir={quoted(name)}"]
        with signals.running(), watching(runs, self._at_once(), ended):
            self._launch(todo, self._passes(runs, prepares=True))

    def _passes(self, runs: list[Run], prepares: bool) -> list[Pass]:
        """What is to do of the passes of a launcher that trains several runs in one.

        Runs that are done count when passes are made: so a sweep that is started again has the
        passes that it had before.

        Args:
            runs: of the sweep.
            prepares: see ``FusedLauncher.passes``.
        """
        divide = getattr(self.launcher, "passes", None)
        todo = {place for place, run in enumerate(runs) if run.status != "done"}
        if divide is None or not todo:
            return []
        size = self.max_batch_size or len(runs)
        found = []
        for start in range(0, len(runs), size):
            configs = [run.config for run in runs[start : start + size]]
            for one in divide(configs, {place - start for place in todo}, prepares):
                jobs = [start + job for job in one.jobs if start + job in todo]
                has_begun = any(runs[job].place.last.exists() for job in jobs)
                is_left = len(jobs) == 1 and not has_begun
                reason = one.reason or (OTHERS_DONE if is_left else "")
                found += [Pass(jobs, reason, 0 if reason else one.num_runs)] * bool(jobs)
        return found

    def _at_once(self) -> int:
        """How many runs the launcher runs at a time."""
        jobs = int(self.config.hydra.launcher.get("n_jobs") or 1)
        return jobs if jobs > 0 else os.cpu_count() or 1

    def _set_aside(self, run: Run) -> None:
        with run.place.alone():
            if run.status == "changed":  # no other process has done it while we waited
                moved = run.place.set_aside()
                print(
                    f"{run.folder.name}: held a run of another config, now in {moved}", flush=True
                )

    def _launch(self, todo: dict[int, list[str]], passes: list[Pass]) -> None:
        """Hand the runs to the launcher. A signal ends its processes, which save checkpoints."""
        from twotower.run.cli import explain

        in_processes = not isinstance(self.launcher, BasicLauncher)
        if in_processes:
            signals.defer(
                lambda signum: processes.send(processes.descendants(os.getpid()), signal.SIGTERM)
            )
        options = getattr(self.launcher, "joblib", None)
        if isinstance(options, dict):
            # else workers of a killed sweep would go on with its runs, then wait for ever
            options.update(initializer=processes.end_with, initargs=(os.getpid(),))
        try:
            self._hand_over(todo, passes)
        except Exception as error:  # such as the death of a launcher's process
            if not signals.asked():
                reason = explain(error) or f"{type(error).__name__}: {error}"
                print(f"the launcher failed: {reason}", flush=True)
        finally:
            signals.defer(None)
            if in_processes and signals.asked():
                processes.end(processes.descendants(os.getpid()))
        signals.raise_if_asked()

    def _hand_over(self, todo: dict[int, list[str]], passes: list[Pass]) -> None:
        launcher: Any = self.launcher
        for one in passes:
            jobs = [todo[place] for place in one.jobs]
            launcher.launch_pass(jobs, one.jobs[0], one.num_runs)
        jobs = [] if passes else list(todo.values())
        size = self.max_batch_size or len(jobs) or 1
        for start in range(0, len(jobs), size):
            launcher.launch(jobs[start : start + size], initial_job_idx=start)
