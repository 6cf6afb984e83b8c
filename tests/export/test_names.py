"""Columns and categories of any name: a model over them is trained, described and exported."""

import io
import random

import onnxruntime
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import make_data
from tests.helpers.exporting import check_parity, exact, export_model
from tests.helpers.table import reader
from twotower.data.card.figures import measure
from twotower.data.card.sheet import draw
from twotower.data.prepare import store
from twotower.data.splits import LeaveLastOut
from twotower.export.towers import input_name
from twotower.plotting import save_figure

PYTHON = ["self", "class", "values", "training"]
GRAPH = ["vector", "vector_", "embedding", "cat", "sum_1", "val_0", "tower.model"]
TEXT = ["$x_y$", "a/b", "../up", "ünï cödé", "=cmd()", "user", "#", "x" * 300]
NAMES = [*PYTHON, *GRAPH, *TEXT]
CATEGORIES = ["$5_to_$10", "$10_to_$20", "warm", "head/mrr", "../x", "日本語", "dataloader_idx_0"]


def row(*cells):
    return ",".join(f'"{cell}"' for cell in cells) + "\n"


@pytest.fixture
def nasty(tmp_path):
    """Twelve users, sixteen items; users have a feature of every name, items of some."""
    chance = random.Random(0)
    clicks = [
        (f"u{user}", f"i{chance.randrange(16)}", time) for user in range(12) for time in range(8)
    ]
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "clicks.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(row(*click) for click in clicks)
    )
    values = lambda names: [chance.choice("abc") for _ in names]  # noqa: E731
    users = "".join(row(f"u{user}", *values(NAMES)) for user in range(12))
    items = "".join(
        row(f"i{item}", CATEGORIES[item % len(CATEGORIES)], *values(GRAPH[:3]))
        for item in range(16)
    )
    (raw / "users.csv").write_text(row("user_id", *NAMES) + users)
    (raw / "items.csv").write_text(row("item_id", "category", *GRAPH[:3]) + items)
    tables = reader(
        interactions="clicks.csv",
        users="users.csv",
        items="items.csv",
        user_columns__user="user_id",
        item_columns__item="item_id",
    )
    module = make_data(tmp_path, tables, split=LeaveLastOut(1))
    module.setup()
    return module


@pytest.mark.slow
def test_features_of_any_name_are_exported_and_served(nasty, tmp_path):
    assert len(nasty.schema.user) == len(NAMES) + 2  # with user_id and history
    model, record = export_model("two_tower", nasty, tmp_path / "export", "model.embedding_dim=2")
    check_parity(model, record, tmp_path / "export", nasty)
    inputs = record["schema"]["user_tower"]["inputs"]
    assert [entry["feature"] for entry in inputs] == [feature.name for feature in nasty.schema.user]
    renamed = {
        entry["feature"]: entry["name"] for entry in inputs if entry["feature"] != entry["name"]
    }
    assert renamed == {"vector": "vector_", "vector_": "vector__"}
    for entry in inputs:
        if entry["kind"] == "categorical":
            vocabulary = tmp_path / "export" / "vocabularies" / f"user.{entry['feature']}.parquet"
            assert vocabulary.parent.name == "vocabularies" and vocabulary.is_file()
    tower = onnxruntime.InferenceSession(tmp_path / "export" / "user_tower.onnx")
    users = pq.read_table(tmp_path / "export" / "users.parquet")
    fields = {field.name for field in users.schema.field("features").type}
    assert fields == {
        node.name for node in tower.get_inputs()
    }  # what the README's example looks up
    assert len(exact(model, nasty, 2)[0]) == 12


def test_the_card_of_any_names_is_drawn(nasty):
    prepared = store.load_folder(nasty.preparation.folder)
    card = measure(prepared, nasty.options)
    figures = {**card.figures, "data": "table", "note": "$1_to_$2"}
    picture = io.BytesIO()
    save_figure(draw(figures, card.curves, prepared.meta["times"]), picture)
    assert Image.open(picture).width == 1760


def test_no_input_has_the_outputs_name():
    names = ["vector", "vector_", "vector__", "vectors", "_vector"]
    assert [input_name(name) for name in names] == [
        "vector_",
        "vector__",
        "vector___",
        "vectors",
        "_vector",
    ]
