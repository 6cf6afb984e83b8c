"""When a trial is ended, by hand, and that it stays ended after a restart."""

from types import SimpleNamespace

import pytest
import torch

from twotower.errors import UserError
from twotower.training.pruning import Pruning


def validate(callback, *values, start=0, max_epochs=20):
    """Validations of one trainer after consecutive epochs, until it is told to stop."""
    trainer = SimpleNamespace(
        sanity_checking=False, should_stop=False, max_epochs=max_epochs, is_global_zero=True
    )
    for epoch, value in enumerate(values, start):
        trainer.current_epoch = epoch
        trainer.callback_metrics = {"val/ndcg@10": torch.tensor(value)}
        callback.on_validation_end(trainer, None)
        if trainer.should_stop:
            break
    return trainer


def pruning(thresholds, first_epoch=1, factor=2, mode="max"):
    return Pruning("val/ndcg@10", mode, first_epoch, factor, thresholds)


def test_the_best_so_far_is_compared_after_1_2_4_epochs():
    callback = pruning([0.1, 0.2, 0.3])
    validate(callback, 0.2, 0.1, 0.25, 0.1)  # 0.2 is enough after 1 and 2, 0.25 not after 4
    assert callback.pruned and list(callback.curve) == [1, 2, 3, 4]
    callback = pruning([None, 0.2])
    validate(callback, 0.0, 0.2, 0.0)
    assert not callback.pruned
    callback = pruning([0.5], mode="min")
    validate(callback, 0.6)
    assert callback.pruned


def test_a_validation_every_few_epochs_is_compared_at_the_next_one():
    callback = pruning([None, 0.2], first_epoch=2)  # after 2 and 4 epochs
    validate(callback, 0.1, start=4)  # after 5
    assert callback.pruned


def test_a_trial_whose_training_ends_anyway_is_complete():
    callback = pruning([0.5])
    validate(callback, 0.1, max_epochs=1)
    assert not callback.pruned and list(callback.curve) == [1]


def test_a_restarted_trial_stays_ended():
    callback = pruning([0.5])
    validate(callback, 0.1)
    again = pruning([0.5])
    again.load_state_dict(callback.state_dict())
    trainer = SimpleNamespace(should_stop=False)
    again.on_fit_start(trainer, None)
    assert trainer.should_stop and again.pruned and list(again.curve) == [1]


def test_without_thresholds_it_only_keeps_the_curve():
    callback = pruning(None)
    validate(callback, 0.1, 0.0)
    assert not callback.pruned and list(callback.curve) == [1, 2]
    with pytest.raises(UserError, match="callbacks.pruning.factor"):
        pruning(None, factor=1)
