"""Two processes with half the batch each are one process, to rounding."""

import pytest
import torch

from tests.helpers.runs import SMALL

COMMON = (
    *SMALL,
    "trainer.precision=64-true",
    "trainer.max_epochs=2",
    "data.reader.num_users=149",
)  # a last batch of 29 is odd
DAT = ("model=dat", "loss.lambda1=0.5", "loss.lambda2=0.3", "loss.lambda3=1")
NO_MIMIC = ("loss.lambda1=0", "loss.lambda2=0", "loss.lambda3=1")


SEQUENCES = (  # whole histories, places from the start and shared draws: no matter where a cut is
    *("data.positives=sequences", "data.history_length=30"),
    *("loss/task=sampled_softmax", "negatives=shared_uniform"),
    *("model/history=transformer", "model.history.positions=start", "model.history.dropout=0"),
)
COMPILED = (*DAT, "loss/task=in_batch_softmax", "callbacks.speed.compile=true")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((*DAT, "loss.reduction=pairs"), marks=pytest.mark.slow),
        pytest.param(
            (*DAT, "loss/task=bce", "negatives=uniform", "negatives.exclude_positives=true"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (*DAT, "loss/task=in_batch_softmax", "loss.alignment.count=items"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                *DAT,
                "loss/task=in_batch_softmax",
                "negatives=mixed_popularity",
                "loss.alignment.momentum=0.5",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "model=two_tower",
                "loss/task=sampled_softmax",
                "negatives=popularity",
                "data.positives=users",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param((*DAT, *SEQUENCES), marks=pytest.mark.slow),
        pytest.param((*DAT, "loss.mimic_target=mean"), marks=pytest.mark.slow),
        pytest.param(
            (*DAT[:1], *NO_MIMIC, "model.augment_gradient=none"),
            marks=pytest.mark.slow,
        ),
        pytest.param((*DAT, "optimizer=lazy_adam", "optimizer.min_rows=1"), marks=pytest.mark.slow),
        pytest.param(
            (*DAT, "optimizer=rowwise_adagrad", "optimizer.min_rows=1"), marks=pytest.mark.slow
        ),
        pytest.param(COMPILED, marks=pytest.mark.exhaustive),  # it takes minutes
    ],
    ids=lambda settings: "+".join(settings[4:]),
)
def test_two_processes_are_one(script, pair, settings):
    one = ("trainer.devices=1", "data.batch_size=60", "hydra.run.dir=run1")
    done = script("train", *COMMON, *settings, *one)
    assert done.returncode == 0, done.stderr
    two = ("trainer.devices=2", "data.batch_size=30", "hydra.run.dir=run2")
    pair(script, "train", *COMMON, *settings, *two)
    one, two = (
        torch.load(script.folder / f"run{n}/checkpoints/last.ckpt", weights_only=True)
        for n in (1, 2)
    )
    assert one["global_step"] == two["global_step"] > 10
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-7, atol=1e-9, msg=name)
    assert script.metrics("run2")["val"] == pytest.approx(script.metrics("run1")["val"], rel=1e-12)
    assert script.metrics("run2")["test"] == pytest.approx(
        script.metrics("run1")["test"], rel=1e-12
    )
