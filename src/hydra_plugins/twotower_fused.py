"""A launcher that trains runs of equal structure in one pass, ``hydra/launcher=fused``.

Hydra imports this module at every start, so modules that import torch are imported when needed.
"""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, run_job, setup_globals
from omegaconf import DictConfig, open_dict

from twotower.errors import UserError
from twotower.sweep.fused_plan import Pass, plan, trains_on_gpu


class FusedLauncher(BasicLauncher):
    """Hydra's basic launcher, but for runs that can be trained in one pass.

    Args:
        max_runs: how many runs are trained in one pass, None: as many as the GPU's memory holds;
            on a CPU all.
    """

    def __init__(self, max_runs: int | None) -> None:
        super().__init__()
        self.max_runs = max_runs

    def setup(self, **context: Any) -> None:
        """Check the settings: an error in ``__init__`` would be Hydra's.

        Raises:
            UserError: for a ``max_runs`` that is no whole number of 1 or more.
        """
        is_whole = isinstance(self.max_runs, int) and not isinstance(self.max_runs, bool)
        if self.max_runs is not None and not (is_whole and self.max_runs >= 1):
            raise UserError(
                f"hydra.launcher.max_runs must be a whole number of 1 or more, got {self.max_runs}"
            )
        super().setup(**context)

    def passes(
        self,
        configs: Sequence[DictConfig],
        todo: Collection[int] | None = None,
        prepares: bool = True,
    ) -> list[Pass]:
        """Divide runs into passes.

        Args:
            configs: as they are composed.
            todo: places of those that are not done yet; None: all.
            prepares: False: data that are not prepared yet stay so, and the GPU's memory is not
                measured for runs that need them.
        """

        def limit(jobs: list[int]) -> int | None:
            is_done = todo is not None and not set(jobs) & set(todo)
            if self.max_runs is not None or is_done or not trains_on_gpu(configs[jobs[0]]):
                return self.max_runs
            from twotower.sweep.memory import runs_that_fit

            fit = runs_that_fit([configs[job] for job in jobs], prepares)
            if fit is not None and fit < len(jobs):
                print(f"the GPU's memory holds {fit} of {len(jobs)} runs of a shape", flush=True)
            return fit

        return plan(configs, limit)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Divide jobs into passes and run them; their outcomes are in the order of the jobs."""
        configs = self._composed(job_overrides, initial_job_idx)
        outcomes: dict[int, JobReturn] = {}
        for one in self.passes(configs):
            made = self._run([configs[job] for job in one.jobs], one.num_runs)
            outcomes.update(zip(one.jobs, made, strict=True))
        return [outcomes[job] for job in range(len(configs))]

    def launch_pass(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int, num_runs: int
    ) -> Sequence[JobReturn]:
        """Run the jobs of one pass, for a sweeper that knows the passes of the whole sweep.

        Args:
            job_overrides: see :meth:`launch`.
            initial_job_idx: see :meth:`launch`.
            num_runs: of the pass, with those that are done; 0: train the job alone.
        """
        return self._run(self._composed(job_overrides, initial_job_idx), num_runs)

    def _composed(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[DictConfig]:
        """The configs of jobs, as the basic launcher composes them."""
        assert self.hydra_context is not None and self.config is not None
        setup_globals()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        load = self.hydra_context.config_loader.load_sweep_config
        configs = [load(self.config, list(overrides)) for overrides in job_overrides]
        for number, config in enumerate(configs, initial_job_idx):
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
        return configs

    def _run(self, configs: list[DictConfig], num_runs: int) -> list[JobReturn]:
        assert self.hydra_context is not None and self.task_function is not None
        start = partial(
            run_job,
            self.task_function,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self.hydra_context,
        )
        outcomes: dict[int, JobReturn] = {}

        def run(job: int) -> None:
            outcomes[job] = start(config=configs[job])

        jobs = [partial(run, job) for job in range(len(configs))]
        if num_runs:
            from twotower.sweep.launch import clean_up
            from twotower.training.fused.lockstep import run_together

            try:
                run_together(jobs, num_runs)
            finally:
                clean_up()
        else:
            for job in jobs:
                job()
        return [outcomes[job] for job in range(len(configs))]
