"""The sentences on top, by hand."""

import pytest

from tests.report.world import METRICS, OPTIONS, make_ranks, run_of
from twotower.report.answer import answers
from twotower.report.ranks import per_user
from twotower.report.section import make_section


@pytest.fixture
def runs(tmp_path):
    """Makes the runs of a variant, a seed for each value of NDCG@10."""
    (tmp_path / "metrics.json").touch()

    def make(values, lambda3, ranks="none", model="dat", **fields):
        settings = {"loss.lambda1": 0.5, "loss.lambda3": lambda3}
        if model != "dat":
            settings["model._target_"] = model
        overrides = [f"model={model}", f"loss.lambda3={lambda3}"]
        return [
            run_of(
                seed,
                tmp_path,
                ranks,
                model=model,
                settings=settings,
                overrides=overrides,
                test={"ndcg@10": value},
                **fields,
            )
            for seed, value in enumerate(values)
        ]

    return make


def texts(runs, **options):
    return [
        f"{own.lead}{own.rest}" for own in answers(make_section(runs, OPTIONS._replace(**options)))
    ]


def test_no_sure_effect_and_the_seeds_it_takes(runs):
    # differences 0 .01 .02: mean .01, sd .01, half width 4.3027 * .01 / √3 = .0248; t = 1.732 with
    # 2 degrees: p = 1 - 1.732 / √(2 + 3) = .225; effect 1 takes 10 seeds, 3 find
    # one of 3.27 (G*Power)
    (text,) = texts([*runs([0.1, 0.2, 0.3], 0), *runs([0.1, 0.21, 0.32], 1)])
    assert text == (
        "λ3 (0 → 1) shows no sure effect on NDCG@10: +.0100 (+5.0 %), dat λ3=1 instead of "
        "dat λ3=0, 3 seeds; 95 % interval over seeds −.0148 to +.0348 (p = .225), not tested over "
        "users, as ranks are missing; a difference of this size takes 10 seeds to find, 3 seeds "
        "find one of .0327 (16.3 %)."
    )


@pytest.mark.parametrize(("gain", "verdict"), [(0.5, "helps"), (-0.5, "hurts")])
def test_a_sure_effect(runs, gain, verdict):
    ranks = {gain: make_ranks(gain, 1), 0: make_ranks(0, 2)}
    values = {own: float(per_user(ranks[own], METRICS["ndcg@10"]).mean()) for own in ranks}
    both = []
    for lambda3, own in ((0, 0), (1, gain)):
        near = [values[own] + noise for noise in ((0, 0.001, -0.001) if own else (0, 0, 0))]
        both += runs(near, lambda3, ranks[own])
    (text,) = texts(both)
    assert text.startswith(f"λ3 (0 → 1) {verdict} NDCG@10: "), text
    assert "over users p = .010" in text  # 100 flips cannot show less
    assert text.endswith("a difference of this size takes 2 seeds to find."), text


def test_a_sure_effect_over_seeds_alone_needs_more_users(runs):
    same = make_ranks(0, 1)
    (text,) = texts([*runs([0.1, 0.2, 0.3], 0, same), *runs([0.11, 0.21, 0.311], 1, same)])
    assert text.startswith("λ3 (0 → 1) may help")
    assert text.endswith(
        "over users p = 1; more seeds do not make it sure, only more test users can."
    )


def test_without_ranks_a_sure_effect_over_seeds_is_not_sure(runs):
    (text,) = texts([*runs([0.1, 0.2, 0.3], 0), *runs([0.11, 0.21, 0.311], 1)])
    assert text.startswith("λ3 (0 → 1) may help")
    assert text.endswith("to be sure takes the test_ranks.parquet of all runs.")


def test_one_seed_is_not_enough(runs):
    (text,) = texts([*runs([0.1], 0), *runs([0.2], 1)])
    assert "+.1000 (+100.0 %), dat λ3=1 instead of dat λ3=0, 1 seed; " in text
    assert text.endswith(
        "one seed does not show whether other trainings agree: train seed=0,1,2,3,4 of both."
    )


def test_of_several_values_the_one_with_most_seeds_counts_and_p_is_corrected(runs):
    every = [*runs([0.1, 0.2, 0.3], 0), *runs([0.1, 0.21, 0.32], 1), *runs([0.4], 2)]
    (text,) = texts(every)
    assert "the best of 2 changes" in text and "λ3 (0 → 1)" in text
    # the other value has one seed and no test: nothing to correct p for; alpha is halved
    assert "(p = .225)" in text and "takes 13 seeds" in text, text


def test_several_pairs_of_a_part_count_together(runs):
    """Differences 0 .01 .02 with one λ1 and .02 .01 0 with another: .01 with every seed."""
    other = [
        run._replace(record=run.record.model_copy(update={"settings": settings}))
        for run in [*runs([0.4, 0.3, 0.2], 0), *runs([0.42, 0.31, 0.2], 1)]
        for settings in [{**run.record.settings, "loss.lambda1": 0}]
    ]
    found = texts([*runs([0.1, 0.2, 0.3], 0), *runs([0.1, 0.21, 0.32], 1), *other])
    text = found[0]
    assert text.startswith(
        "λ3 (0 → 1) may help NDCG@10: +.0100 (+4.0 %), the mean of 2 pairs, 3 "
    ), text
    assert "interval over seeds +.0100 to +.0100 (p < .001)" in text, text


def test_a_pair_with_other_seeds_does_not_count_with_the_others(runs):
    other = [
        run._replace(record=run.record.model_copy(update={"settings": settings}))
        for run in [*runs([0.4, 0.3], 0), *runs([0.42, 0.31], 1)]
        for settings in [{**run.record.settings, "loss.lambda1": 0}]
    ]
    found = texts([*runs([0.1, 0.2, 0.3], 0), *runs([0.1, 0.21, 0.32], 1), *other])
    assert "3 seeds; 95 % interval over seeds −.0148 to +.0348 (p = .225)" in found[0]


def test_without_pairs_the_best_variant_is_compared_and_the_command_is_named(runs):
    plain = runs([0.1, 0.2], 0, model="two_tower")
    every = [*plain, *runs([0.2, 0.3], 1), *runs([0.1], 2, model="fm")]
    best, ablation = texts(every, baseline="two_tower")
    assert best.startswith("dat λ3=1 instead of two_tower λ3=0 ")
    assert "python src/train.py -m sweep=ablation" in ablation
    assert texts(runs([0.1, 0.2], 0)) == []


def test_variants_that_are_not_above_popularity_are_named(runs):
    popularity = {"ndcg@10": 0.15}
    every = [*runs([0.1, 0.1], 0, popularity=popularity), *runs([0.2, 0.3], 1)]
    assert texts(every)[1:] == ["Not above popularity (NDCG@10 .1500): dat λ3=0."]
    assert len(texts(every, metric="ndcg@10", baseline="λ3=1")) == 2
    assert len(texts([*runs([0.16, 0.2], 0, popularity=popularity), *runs([0.2, 0.3], 1)])) == 1


def test_only_the_first_parts_have_a_sentence(runs):
    plain = runs([0.1, 0.2], 0)
    others = [
        run._replace(
            record=run.record.model_copy(
                update={"settings": {**run.record.settings, f"model.s{place}": 1}}
            )
        )
        for place in range(8)
        for run in plain
    ]
    found = texts([*plain, *others])
    assert len(found) == 7 and found[-1] == "2 more parts are in the table."


def test_that_no_variant_is_above_popularity_comes_first(runs):
    popularity = {"ndcg@10": 0.35}
    every = [*runs([0.1, 0.1], 0, popularity=popularity), *runs([0.2, 0.3], 1)]
    first, second = texts(every)
    assert first.startswith("No variant is above popularity (NDCG@10 .3500), so ")
    assert second.startswith("λ3 (0 → 1) ")
