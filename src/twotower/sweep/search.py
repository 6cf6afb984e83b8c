"""A search: every variant gets the same number of trials, asked in rounds and told to a journal."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from twotower import locks
from twotower.errors import UserError
from twotower.run.run_folder import RunFolder
from twotower.run.settings import Value
from twotower.sweep.candidates import Candidate, check_values
from twotower.sweep.fused_plan import is_vector, settings_of
from twotower.sweep.plan import Run, as_override
from twotower.sweep.pruners import thresholds
from twotower.sweep.same_search import abouts_of, refuse_another, refuse_small_budget
from twotower.sweep.space import grid_of
from twotower.sweep.trials import (
    JOURNAL,
    Outcome,
    Trial,
    best_of,
    outcome_of,
    write_about,
    write_trials,
)
from twotower.wording import printable


class Search:
    """The trials of all variants.

    Args:
        folder: of the search.
        config: with its settings.
        candidates: the variants.
        width: trials of a variant that are asked for at a time.
        of_one_shape: the trials that a variant is asked for at a time differ in nothing that would
            keep them from one pass; what would is drawn for the first of them.
        compose: makes the run of a trial of its overrides and the name of its folder.
        launch: trains runs, and calls a function whenever one has ended.

    Raises:
        UserError: without a budget or a metric, with a test, and for a grid with fewer points than
            trials.
    """

    def __init__(
        self,
        folder: Path,
        config: DictConfig,
        candidates: Sequence[Candidate],
        width: int,
        of_one_shape: bool,
        compose: Callable[[list[str], str], Run],
        launch: Callable[[list[Run], Callable[[], None]], None],
    ) -> None:
        self.folder = folder
        self.config = config
        self.candidates = candidates
        self.width = width
        self.of_one_shape = of_one_shape
        self.compose = compose
        self.launch = launch
        if config.budget is None:
            raise UserError("budget=null: a search needs a number of trials, such as budget=24")
        if any(one.base.config.test for one in candidates):
            raise UserError("test=true: trials are not tested; sweep=confirm tests the best ones")
        if not config.callbacks.get("best"):
            raise UserError("callbacks.best=null: a search needs it, as it names the metric")
        self.pruner = config.pruner if config.callbacks.get("pruning") else "none"
        self.monitor, self.mode = str(config.callbacks.best.monitor), config.callbacks.best.mode
        self.studies: dict[str, Any] = {}
        self.abouts = abouts_of(candidates, config, self.pruner)
        if config.sampler == "grid":
            for one in candidates:  # refuses one that is too small
                grid_of(one.space, config.budget, one.label)

    def check(self) -> None:
        """Refuse what :meth:`run` would refuse before its first trial; nothing is written.

        Raises:
            UserError: for a value that a variant does not take, or another search in the folder.
        """
        check_values(self.candidates, self.compose)
        if (self.folder / JOURNAL).exists():
            from twotower.sweep.study import open_journal  # a plan of a new search needs no Optuna

            self._open(open_journal(self.folder, repairs=False))

    def run(self, begin: Callable[[], None]) -> None:
        """Train what is left of the budget.

        Args:
            begin: called once the search is accepted.

        Raises:
            UserError: if the folder has another search, or trials did not finish.
        """
        from twotower.sweep.study import Study, open_journal

        waits = f"{self.folder.name}: another process searches there; waiting for its end"
        with locks.alone(self.folder / ".locks" / "search", waits, print):
            storage = open_journal(self.folder)
            self._open(storage)
            begin()
            for label, about in self.abouts.items():
                if label not in self.studies:
                    self.studies[label] = Study(storage, label, self.mode, about)
            while asked := self._round():
                if batch := self._composed(asked):
                    self._train(batch)
            self.write()

    def trials(self) -> dict[str, list[Trial]]:
        """What is known of all trials, also of variants of earlier commands.

        Of one that is under way, what its folder says.
        """
        return {
            label: [self._with_outcome(label, trial) for trial in study.trials]
            for label, study in self.studies.items()
        }

    def write(self) -> None:
        """Write ``trials.csv`` and ``search.yaml``."""
        known = self.trials()
        rows = [(label, trial) for label, trials in known.items() for trial in trials]
        write_trials(self.folder, rows)
        abouts = {label: study.about for label, study in self.studies.items()}
        about = {
            "metric": self.monitor,
            "mode": self.mode,
            "budget": self.config.budget,
            "sampler": self.config.sampler,
            "pruner": self.pruner,
            "data": self.candidates[0].base.data,
            "seed": self.config.seed,
            "space": {label: one["space"] for label, one in abouts.items()},
            "overrides": {label: one["overrides"] for label, one in abouts.items()},
        }
        write_about(self.folder, about)

    def _open(self, storage: Any) -> None:
        """Open the variants that the journal has from earlier, unless they are of another search.

        Raises:
            UserError: naming what differs.
        """
        from twotower.sweep.study import Study, variants_of

        self.studies = {label: Study(storage, label, self.mode) for label in variants_of(storage)}
        known = {label: study.about for label, study in self.studies.items()}
        refuse_another(self.folder, self.candidates, self.abouts, known)
        num_trials = {label: len(study.trials) for label, study in self.studies.items()}
        refuse_small_budget(self.folder, self.config.budget, num_trials)

    def _round(self) -> list[tuple[Candidate, Trial]]:
        """The trials that are under way, and new ones up to the width; none at the end."""
        batch: list[tuple[Candidate, Trial]] = []
        for one in self.candidates:
            study = self.studies[one.label]
            trials: list[Trial] = study.trials
            is_open = [trial for trial in trials if not trial.outcome]
            start = (is_open[0].number if is_open else len(trials)) // self.width * self.width
            while len(trials) < min(start + self.width, self.config.budget):
                first = trials[start] if start < len(trials) else None
                trials.append(self._ask(one, study, len(trials), first))
                is_open.append(trials[-1])
            batch += [(one, trial) for trial in is_open]
        return batch

    def _composed(self, asked: list[tuple[Candidate, Trial]]) -> list[tuple[str, Trial, Run]]:
        """The runs of a round. A trial whose values do not fit one another has failed."""
        batch = []
        for one, trial in asked:
            try:
                batch.append((one.label, trial, self._run_of(one, trial)))
            except UserError as error:
                failed = Outcome("failed", error=str(error))
                self.studies[one.label].tell(trial.number, failed)
        return batch

    def _ask(self, one: Candidate, study: Any, number: int, first: Trial | None) -> Trial:
        fixed: dict[str, Value] = {}
        if self.of_one_shape and first is not None and self.config.sampler != "grid":
            settings, _ = settings_of(one.base.config)
            fixed = {key: v for key, v in first.values.items() if not is_vector(key, settings)}
        limits = None
        if self.pruner != "none":
            pruning = self.config.callbacks.pruning
            rungs = (pruning.first_epoch, pruning.factor, self.mode)
            limits = thresholds(self.pruner, number, study.ended(), *rungs)
        config = self.config
        asked: Trial = study.ask(
            one.space, config.sampler, config.budget, config.seed, fixed, limits
        )
        return asked

    def _run_of(self, one: Candidate, trial: Trial) -> Run:
        values = [f"{key}={as_override(value)}" for key, value in trial.values.items()]
        if trial.thresholds is not None:
            limits = ",".join(map(as_override, trial.thresholds))
            values.append(f"callbacks.pruning.thresholds=[{limits}]")
        return self.compose([*one.base.overrides, *values], folder_name(one.label, trial.number))

    def _train(self, batch: list[tuple[str, Trial, Run]]) -> None:
        """Train a round, and tell how its trials have ended.

        Raises:
            UserError: for trials that did not finish, and if no trial has succeeded at all.
        """
        self.write()
        self.launch([run for _, _, run in batch], self.write)
        outcomes = [outcome_of(run.place, self.monitor) for _, _, run in batch]
        self._refuse_failures(outcomes)
        for (label, trial, _), outcome in zip(batch, outcomes, strict=True):
            if outcome is not None:
                self.studies[label].tell(trial.number, outcome)
        self.write()
        missing = outcomes.count(None)
        if missing:
            raise UserError(
                f"{missing} trials did not finish; the same command continues with them"
            )
        for one in self.candidates:
            print(self._progress(one.label), flush=True)

    def _progress(self, label: str) -> str:
        """How many trials of a variant have ended, and the best so far."""
        trials = self.studies[label].trials
        ended = sum(trial.outcome is not None for trial in trials)
        line = f"{label}: {ended} of {self.config.budget} trials ended"
        best = best_of(trials, self.mode)
        if best is None or best.outcome is None:
            return line
        return f"{line}, best {best.outcome.value:.4f} (trial {best.number})"

    def _refuse_failures(self, outcomes: list[Outcome | None]) -> None:
        """End a search whose first trials all fail: what is mended then costs no budget."""
        failed = [one for one in outcomes if one is not None and one.state == "failed"]
        told = [trial for study in self.studies.values() for trial in study.trials]
        if len(failed) == len(outcomes) and not any(
            trial.state in ("complete", "pruned") for trial in told
        ):
            reason = printable(failed[0].error)
            raise UserError(f"every trial has failed, the first one: {reason}")

    def _with_outcome(self, label: str, trial: Trial) -> Trial:
        if trial.outcome is not None:
            return trial
        folder = self.folder / folder_name(label, trial.number)
        return trial._replace(outcome=outcome_of(RunFolder(folder), self.monitor))


def folder_name(label: str, number: int) -> str:
    """Name of a trial's folder."""
    return f"{label}-{number:03d}"
