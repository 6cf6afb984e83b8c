"""The trials of one variant in Optuna's journal: asked for, and told.

A trial is one line of the journal, with all its values, so that a killed search has either all of
it or nothing. What is drawn depends on the number of the trial and on the trials before it alone.
"""

import random
from pathlib import Path
from typing import Any, Literal

from twotower.errors import UserError
from twotower.run.settings import Value
from twotower.sweep.pruners import Ended
from twotower.sweep.space import Distribution, Space, grid_of
from twotower.sweep.trials import JOURNAL, Outcome, Trial

try:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages import BaseStorage, JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState, create_trial
except ModuleNotFoundError:
    raise UserError(
        "sweep=search needs a package that is not installed: pip install 'twotower[sweep]'"
    ) from None

RANDOM_FIRST = 8  # trials that tpe draws at random
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
TOLD = {name: state for state, name in STATES.items() if state is not TrialState.RUNNING}


class _NoLock:
    """The search holds a lock of its own, which a killed process does not leave behind."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def open_journal(folder: Path, repairs: bool = True) -> JournalStorage:
    """The journal in a search's folder.

    Args:
        folder: of the search.
        repairs: remove a line that was not written to its end. The caller holds the lock of the
            search then, and else only reads.

    Raises:
        UserError: if it is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / JOURNAL
    if repairs and path.exists():
        _drop_torn_line(path)
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock()))  # type: ignore[arg-type]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): move the folder away") from None


def _drop_torn_line(path: Path) -> None:
    """Remove the last line if a killed process has not written all of it."""
    with path.open("rb+") as file:
        whole = file.read().rpartition(b"\n")
        file.truncate(len(whole[0]) + len(whole[1]))


class Study:
    """The trials of one variant.

    Args:
        storage: of the search.
        label: of the variant.
        mode: ``max`` or ``min``.
        about: of a variant that is new, plain values, kept in the journal; None: the journal has
            the variant.
    """

    def __init__(
        self, storage: BaseStorage, label: str, mode: str, about: dict[str, Any] | None = None
    ) -> None:
        self.label = label
        self._mode: Literal["maximize", "minimize"] = "maximize" if mode == "max" else "minimize"
        if about is None:
            self._study = optuna.load_study(study_name=label, storage=storage)
            return
        # a killed process may have left a study without its attribute
        self._study = optuna.create_study(
            storage=storage, study_name=label, direction=self._mode, load_if_exists=True
        )
        self._study.set_user_attr("about", about)

    @property
    def about(self) -> dict[str, Any]:
        """See the class."""
        found: dict[str, Any] = self._study.user_attrs["about"]
        return found

    @property
    def trials(self) -> list[Trial]:
        """In the order of asking."""
        return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def ended(self) -> list[Ended]:
        """The told trials that have a curve."""
        return [
            Ended(frozen.number, frozen.intermediate_values, frozen.state is TrialState.PRUNED)
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.state in (TrialState.COMPLETE, TrialState.PRUNED)
        ]

    def ask(
        self,
        space: Space,
        sampler: str,
        budget: int,
        seed: int,
        fixed: dict[str, Value],
        thresholds: list[float | None] | None,
    ) -> Trial:
        """Draw the next trial, and write it to the journal.

        Args:
            space: what is drawn.
            sampler: ``tpe``, ``random`` or ``grid``.
            budget: number of trials, which a grid needs points for.
            seed: of the search.
            fixed: values that are not drawn.
            thresholds: kept with the trial.
        """
        number = len(self._study.get_trials(deepcopy=False))
        distributions = {key: _optuna(one) for key, one in space.items()}
        if sampler == "grid":
            points = grid_of(space, budget, self.label)
            random.Random(seed).shuffle(points)
            values: dict[str, Any] = points[number]
        else:
            values = self._drawn(distributions, sampler, _mixed(seed, number))
            values = {key: space[key].rounded(value) for key, value in values.items()}
        frozen = create_trial(
            state=TrialState.RUNNING,
            params={**values, **fixed},
            distributions=distributions,
            user_attrs={"thresholds": thresholds},
        )
        self._study.add_trial(frozen)
        return self.trials[number]

    def _drawn(self, distributions: dict[str, Any], sampler: str, seed: int) -> dict[str, Any]:
        """Values for the next trial, drawn in a copy of the study that is kept nowhere."""
        made = (
            optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=RANDOM_FIRST, multivariate=True, constant_liar=True
            )
            if sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )
        copy = optuna.create_study(sampler=made, direction=self._mode)
        copy.add_trials(self._study.get_trials(deepcopy=False))
        return copy.ask(distributions).params

    def tell(self, number: int, outcome: Outcome) -> None:
        """Write to the journal how a trial has ended."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        trial = optuna.trial.Trial(self._study, frozen._trial_id)
        for epoch, value in outcome.curve.items():
            if epoch not in frozen.intermediate_values:  # a killed process may have begun this
                trial.report(value, epoch)
        shown = {"value": outcome.value, "epochs": outcome.epochs, "seconds": outcome.seconds}
        trial.set_user_attr("outcome", {**shown, "error": outcome.error})
        values = [outcome.value] if outcome.value is not None else []
        is_complete = outcome.state == "complete"
        self._study.tell(number, values if is_complete else None, state=TOLD[outcome.state])


def variants_of(storage: BaseStorage) -> list[str]:
    """The labels of all variants in a journal, in the order in which they were begun."""
    return [one.study_name for one in storage.get_all_studies() if "about" in one.user_attrs]


def _trial(frozen: FrozenTrial) -> Trial:
    told = frozen.user_attrs.get("outcome", {}) if frozen.state.is_finished() else {}
    outcome = Outcome(STATES[frozen.state], **told) if told else None
    return Trial(frozen.number, dict(frozen.params), frozen.user_attrs["thresholds"], outcome)


def _optuna(distribution: Distribution) -> Any:
    if distribution.choices:
        return CategoricalDistribution(distribution.choices)
    kind = IntDistribution if distribution.whole else FloatDistribution
    return kind(distribution.low, distribution.high, log=distribution.log)  # type: ignore[arg-type]


def _mixed(seed: int, number: int) -> int:
    """A seed for each trial: the same for all variants, so that they share their random draws."""
    return random.Random(f"{seed} {number}").getrandbits(32)
