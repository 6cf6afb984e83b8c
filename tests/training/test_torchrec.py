"""Tables that TorchRec trains are those of ``model.sharding=row``, to the rounding of float32."""

import importlib.util

import pytest
import torch

from tests.helpers.runs import SMALL

needs_torchrec = pytest.mark.skipif(
    importlib.util.find_spec("torchrec") is None, reason="TorchRec is not installed: make torchrec"
)

WORLD = (
    *(setting for setting in SMALL if not setting.startswith(("data.", "trainer.max_epochs"))),
    "data.reader.num_users=151",
    "data.reader.num_items=80",
    "data.reader.interactions_per_user=10",
    "data.eval_batch_size=25",
    "data.history_length=5",
    "data.batch_size=30",
    "optimizer=rowwise_adagrad",
    "optimizer.min_rows=90",  # users and augmented users by TorchRec, items by AdamW
    "scheduler=linear_warmup",
    "scheduler.warmup_steps=15",
    "trainer.max_epochs=2",
    "trainer.devices=2",
)
ALL_TABLES = "optimizer.min_rows=1"
DAT = ("model=dat", "loss.lambda1=0.5", "loss.lambda2=0.3", "loss.lambda3=1")


def train(script, pair, run, *settings):
    pair(script, "train", *WORLD, *settings, f"hydra.run.dir={run}")
    return torch.load(script.folder / run / "checkpoints/last.ckpt", weights_only=True)


def assert_same(found, expected, exactly=2e-5):
    assert found["global_step"] == expected["global_step"] > 10
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(
            found["state_dict"][name],
            value,
            rtol=0,
            atol=exactly,
            msg=lambda text, name=name: name + text,
        )
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (found, expected)]
    assert states[0].keys() == states[1].keys()
    for index, entries in states[1].items():
        for key, value in entries.items():
            torch.testing.assert_close(
                states[0][index][key],
                value,
                rtol=1e-4,
                atol=exactly,
                msg=lambda text, key=key: key + text,
            )


@needs_torchrec
@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (*DAT, "loss/task=in_batch_softmax"),
        (*DAT, "loss/task=in_batch_softmax", ALL_TABLES, "optimizer.weight_decay=0.1"),
        ("model=two_tower", "model/history=transformer", "model.share_item_table=true", ALL_TABLES),
        ("model=mind", ALL_TABLES),
    ],
)
def test_runs_are_those_of_rows(script, pair, settings):
    settings = (*settings, "model.history.dropout=0") if "transformer" in settings[1] else settings
    expected = train(script, pair, "row", *settings, "model.sharding=row")
    found = train(script, pair, "torchrec", *settings, "model.sharding=torchrec")
    assert_same(found, expected)
    for part in ("val", "test"):
        assert script.metrics("torchrec")[part] == pytest.approx(
            script.metrics("row")[part], rel=1e-3
        )
