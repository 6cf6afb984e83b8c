"""Which trials go on, by hand."""

from collections import Counter

from twotower.sweep.pruners import Ended, bracket_of, thresholds


def ended(*bests, epochs=9):
    """Trials with these values from the first epoch on."""
    return [
        Ended(number, dict.fromkeys(range(1, epochs + 1), best), False)
        for number, best in enumerate(bests)
    ]


def halving(earlier, first=1, factor=3, mode="max"):
    return thresholds("successive_halving", len(earlier), earlier, first, factor, mode)


def test_the_best_third_goes_on_the_trial_itself_included():
    assert halving([]) is None
    assert halving(ended(0.1)) is None  # two trials have no third
    # of three one goes on: the new one must reach the best of the others
    assert halving(ended(0.1, 0.2)) == [0.2, 0.2, 0.2]
    # of six two go on
    assert halving(ended(0.5, 0.4, 0.3, 0.2, 0.1)) == [0.4, 0.4, 0.4]
    assert halving(ended(0.5, 0.4, 0.3, 0.2, 0.1), mode="min") == [0.2, 0.2, 0.2]


def test_a_pruned_trial_counts_up_to_its_end_and_one_that_stopped_early_for_ever():
    pruned = Ended(0, {1: 0.1, 2: 0.2}, True)
    stopped = Ended(1, {1: 0.3, 2: 0.5, 3: 0.4}, False)
    long = Ended(2, dict.fromkeys(range(1, 10), 0.35), False)
    # after 1 epoch 0.1, 0.3 and 0.35; after 3 and 9 two values, one of which is 0.5
    assert halving([pruned, stopped, long]) == [0.35, 0.5, 0.5]


def test_rungs_come_after_first_times_factor_epochs():
    rising = [Ended(n, {epoch: epoch / 100 for epoch in range(1, 9)}, False) for n in range(2)]
    assert halving(rising, first=2, factor=2) == [0.02, 0.04, 0.08]


def test_hyperband_compares_within_a_bracket_that_begins_later():
    counts = Counter(bracket_of(number, 3) for number in range(17))
    assert counts == {0: 9, 1: 5, 2: 3}
    numbers = [n for n in range(60) if bracket_of(n, 3) == 1]
    others = [n for n in range(60) if bracket_of(n, 3) == 0]
    earlier = [Ended(n, dict.fromkeys(range(1, 10), 0.2), False) for n in numbers[:3]]
    earlier += [Ended(n, dict.fromkeys(range(1, 10), 0.9), False) for n in others[:3]]
    assert thresholds("hyperband", numbers[4], earlier, 1, 3, "max") == [None, 0.2, 0.2]
