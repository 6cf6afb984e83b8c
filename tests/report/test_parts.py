"""Pairs of variants that differ in one part."""

import pytest

from tests.report.world import run_of
from twotower.report.parts import find_pairs
from twotower.report.variants import Variant

TWO_TOWER = {"model._target_": "TwoTower", "model.id_extra_dim": 0}
DAT = {"model._target_": "DAT", "model.augment_gradient": "both"}


def variant(label, model="dat", **lambdas):
    """A variant with the weights λ1, λ2 and λ3 (0 by default), called ``label``."""
    own = {"two_tower": TWO_TOWER, "dat": DAT}.get(model, {"model._target_": model})
    known = {"lambda1": 0, "lambda2": 0, "lambda3": 0, **lambdas}
    settings = {**own, **{f"loss.{name}": value for name, value in known.items()}}
    return Variant(label, (run_of(model=model, settings=settings),))


def found(*variants):
    """In both orders, as the order of the variants must not matter."""
    pairs = [
        [f"{pair.part}: {pair.change}, {pair.start.label} to {pair.end.label}" for pair in own]
        for own in (find_pairs(list(variants)), find_pairs(list(variants[::-1])))
    ]
    assert sorted(pairs[0]) == sorted(pairs[1])
    return pairs[0]


def test_the_parts_of_an_ablation():
    mimic = {"lambda1": 0.5, "lambda2": 0.5}
    plain, zero = variant("plain", "two_tower"), variant("zero")
    cal, amm = variant("cal", lambda3=1), variant("amm", **mimic)
    assert set(found(plain, zero, cal, amm, variant("full", lambda3=1, **mimic))) == {
        "λ3: 0 → 1, zero to cal",
        "λ3: 0 → 1, amm to full",
        "λ1 = λ2: 0 → 0.5, zero to amm",
        "λ1 = λ2: 0 → 0.5, cal to full",
        "augmented vectors: two_tower → dat, plain to zero",
    }


def test_each_value_is_paired_with_the_smallest():
    values = [variant(f"v{value}", lambda3=value) for value in (1, 0.1, 10.0, 0)]
    assert set(found(*values)) == {
        "λ3: 0 → 0.1, v0 to v0.1",
        "λ3: 0 → 1, v0 to v1",
        "λ3: 0 → 10, v0 to v10.0",
    }


@pytest.mark.parametrize(
    "variants",
    [
        # two of the three weights; λ1 and λ2 to different values
        (variant("a", lambda1=0.5), variant("b", lambda3=1)),
        (variant("a"), variant("b", lambda1=0.5, lambda2=0.1)),
        # the model, and a weight of its loss
        (variant("a", "two_tower"), variant("b", lambda3=1)),
        (variant("a"),),
    ],
)
def test_more_than_one_part_is_no_pair(variants):
    assert found(*variants) == []


def test_other_settings_and_models_have_their_names():
    dat, mind, plain = variant("dat"), variant("mind", "mind"), variant("plain", "two_tower")
    wide = Variant("wide", (run_of(settings={**dat.settings, "model.dim": 64}),))
    narrow = Variant("narrow", (run_of(settings={**dat.settings, "model.dim": 16}),))
    assert found(wide, narrow) == ["model.dim: 16 → 64, narrow to wide"]
    assert found(dat, wide) == ["model.dim: unset → 64, dat to wide"]
    sums = Variant("sums", (run_of(settings={**dat.settings, "loss.over_dim": "sum"}),))
    means = Variant("mean", (run_of(settings={**dat.settings, "loss.over_dim": "mean"}),))
    assert found(means, sums) == ["loss.over_dim: mean → sum, mean to sums"]
    assert set(found(dat, mind, plain)) == {
        "augmented vectors: two_tower → dat, plain to dat",
        "model: two_tower → mind, plain to mind",
    }
