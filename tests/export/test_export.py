"""Exported files return what the model does."""

import copy
import errno

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, make_data
from tests.helpers.exporting import (
    CPU,
    MEASURE,
    about,
    assert_same_lists,
    check_parity,
    encode_corpus_items,
    exact,
    export_model,
    quiet,
    serve,
    serve_new,
)
from tests.helpers.models import MODELS, build, first_batch
from twotower.data import datamodule
from twotower.data.batches.present import present_features
from twotower.data.sampling import Uniform
from twotower.data.splits import Temporal
from twotower.errors import UserError
from twotower.export import folder as export_folder
from twotower.export import parity, tables, towers
from twotower.export.folder import write_export
from twotower.export.in_file import NoIndex
from twotower.export.index import IVFPQ, Flat
from twotower.export.towers import OnnxTower
from twotower.retrieval import exact as exact_search
from twotower.retrieval.exact import encode_users

TYPED = [
    ("two_tower", "model/history=attention"),
    ("two_tower", "model/history=gru", "model.cold_ids=zero"),
    ("two_tower", "model/history=transformer", "model.share_item_table=true"),
    ("two_tower", "model/history=transformer", "model.history.positions=relative"),
    ("two_tower", "model/history=transformer", "model.history.positions=start"),
    ("two_tower", "model/history=bsarec", "model.history.c=2"),
    ("two_tower", "model/history=hstu"),
    ("two_tower", "model/history=ligr"),
    ("mf", "model.item_bias=true"),
    ("mind", "model.user_features=[segment,age]"),
    ("dat", "model.cold_ids=trained", "model.id_dropout=0.1"),
]


def test_dat_as_onnx_returns_its_vectors(exported):
    folder, data, model, record = exported
    check_parity(model, record, folder, data)
    # whoever may read one file may read all
    assert len({path.stat().st_mode for path in folder.rglob("*") if path.is_file()}) == 1


@pytest.mark.slow
def test_running_means_are_exported_as_tables(data, tmp_path):
    """Of each known user, and the mean of all for a new one; no positives are asked for."""
    model = build("dat", data, "model.augment_gradient=none")
    model.train()(first_batch(data, Uniform(3, False)))
    parts = (Flat(), False, MEASURE, quiet, quiet)
    record = write_export(
        tmp_path / "export", about(data), copy.deepcopy(model).eval(), data, *parts
    )
    assert model.user_augmented.weight.any()
    check_parity(model.eval(), record, tmp_path / "export", data)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_exported_and_served(name, data, tmp_path):
    model, record = export_model(name, data, tmp_path / "export")
    check_parity(model, record, tmp_path / "export", data)
    assert record["parity"]["index"]["recall"] == 1.0 or name == "popularity"  # whose items tie
    served = serve(tmp_path / "export", data.ids["user"]["user"].to_list(), 5)
    assert_same_lists(served, *exact(model, data, 5))
    serve_new(model, data, tmp_path / "export", 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", TYPED, ids=lambda overrides: "-".join(overrides).replace("/", ".")
)
def test_every_encoder_and_cold_policy_is_exported(overrides, data, tmp_path):
    model, record = export_model(*overrides[:1], data, tmp_path / "export", *overrides[1:])
    check_parity(model, record, tmp_path / "export", data)


def test_the_readme_serves_what_exact_search_ranks(exported):
    folder, data, model, _ = exported
    assert (
        data.meta["num_train_users"] < 60 and data.schema.num_train_items < 40
    )  # new users and items are among them
    served = serve(folder, data.ids["user"]["user"].to_list(), 5)
    assert_same_lists(served, *exact(model, data, 5))


def test_the_readme_serves_new_users_as_the_model_does(exported):
    folder, data, model, _ = exported
    serve_new(model, data, folder, 5)


@pytest.mark.slow
def test_the_readme_shows_new_users_what_they_saw_if_the_evaluation_does(tmp_path):
    data = make_data(tmp_path, mask_seen=False)
    data.setup()
    model, _ = export_model("youtube_dnn", data, tmp_path / "export")
    serve_new(model, data, tmp_path / "export", 5)


def test_the_readme_serves_new_users_with_the_labels_of_their_items(tmp_path):
    """One value, several and none; items that training did not see have no labels in a history."""
    labels = ["category", "brand", "tags"]
    data = make_data(tmp_path, split=Temporal(0.05, 0.2, 0), history_features=[*labels, "time_gap"])
    data.setup()
    assert data.schema.num_train_items < data.schema.num_items
    model = build("two_tower", data, "model/history=transformer")
    events = [own for name, own in model.named_parameters() if ".events." in name]
    assert len(events) == 4
    for parameter in events:  # zeros until they are trained
        torch.nn.init.normal_(parameter)
    parts = (Flat(), False, MEASURE, quiet, quiet)
    write_export(tmp_path / "export", about(data), copy.deepcopy(model), data, *parts)
    serve_new(model, data, tmp_path / "export", 5)
    written = pq.read_table(tmp_path / "export" / "item_vectors.parquet")["features"]
    assert written.type.names == [f"history_{name}" for name in labels]
    brand = [entry["history_brand"] for entry in written.to_pylist()]
    assert brand == data.tables["item/brand"].tolist()
    readme = (tmp_path / "export" / "README.md").read_text()
    assert "do not tell `history_time_gap`: 0 (unknown)" in readme


def test_the_exact_index_finds_what_the_evaluation_counts(exported):
    parity = exported[3]["parity"]
    assert parity["users"] == 40 and parity["index"] == parity["flat"] and parity["curve"] == []
    assert parity["index"]["recall"] == 1.0 and parity["index"]["max_score_difference"] < 1e-6
    assert parity["index"]["hit_rate"] == parity["exact_hit_rate"] > 0


def test_vectors_are_parquet_by_raw_id(exported):
    folder, data, model, _ = exported
    items, users = (
        pq.read_table(folder / "item_vectors.parquet"),
        pq.read_table(folder / "user_vectors.parquet"),
    )
    assert items.column_names == ["item", "vector", "category"] and str(
        items.schema.field("vector").type
    ).endswith("[32]")
    assert items["item"].to_pylist() == data.ids["item"]["item"].to_list()
    assert items["category"].to_pylist() == data.ids["item"]["category"].to_list()
    np.testing.assert_array_equal(
        np.array(items["vector"].to_pylist(), np.float32), encode_corpus_items(model, data).numpy()
    )
    np.testing.assert_array_equal(
        np.array(users["vector"].to_pylist(), np.float32), vectors_today(model, data).numpy()
    )


def test_items_are_written_and_compared_some_at_a_time(exported, tmp_path, monkeypatch):
    folder, data, model, record = exported
    monkeypatch.setattr(datamodule, "CORPUS_CHUNK", 9)
    mapped = tables.write_items(model, data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["item_vectors.parquet"]
    whole = encode_corpus_items(model, data)
    np.testing.assert_allclose(mapped.numpy(), whole.numpy(), atol=1e-6)
    file = pq.ParquetFile(tmp_path / "item_vectors.parquet")
    assert file.num_row_groups == 5  # of 40 items
    found, once = file.read(), pq.read_table(folder / "item_vectors.parquet")
    assert found.schema.equals(once.schema)
    assert found.drop(["vector"]).equals(once.drop(["vector"]))
    np.testing.assert_array_equal(np.array(found["vector"].to_pylist(), np.float32), mapped.numpy())
    chunks = list(export_folder._item_chunks(data, mapped))
    assert [len(vector) for _, vector in chunks] == [9, 9, 9, 9, 4]
    tower = OnnxTower(folder / "item_tower.onnx")
    assert parity.tower_difference(tower, chunks, 1e-4) < 1e-6
    mapped[39] += 1  # in the last chunk
    with pytest.raises(UserError, match=r"item_tower.onnx differs from the model by 1"):
        parity.tower_difference(tower, export_folder._item_chunks(data, mapped), 1e-4)


def test_a_full_disk_leaves_nothing(data, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    column, calls = tables._column, []

    def second_is_full(name, value):
        calls.append(name)
        return column(name, value) if len(calls) == 1 else full()

    monkeypatch.setattr(datamodule, "CORPUS_CHUNK", 9)
    monkeypatch.setattr(tables, "_column", second_is_full)
    with pytest.raises(OSError, match="No space left"):
        export_model("mf", data, tmp_path / "here" / "export")
    assert list((tmp_path / "here").iterdir()) == []


def test_exact_lists_of_the_sample_are_found_block_by_block(exported, monkeypatch):
    _, data, model, _ = exported
    items = encode_corpus_items(model, data)
    whole = parity.take_sample(model, data, items, 40, 5, seed=0)
    monkeypatch.setattr(exact_search, "READ_AHEAD", 7)
    parts = parity.take_sample(model, data, items, 40, 5, seed=0)
    np.testing.assert_array_equal(parts.exact, whole.exact)
    np.testing.assert_allclose(parts.score, whole.score, rtol=1e-5)
    assert parts.hit_rate == whole.hit_rate > 0


def test_a_tie_at_the_end_of_the_list_is_no_hit():
    score = torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 1.0], [3.0, 2.0, -torch.inf]])
    item, target = torch.tensor([[7, 8, 9]] * 3), torch.tensor([[8, -1], [8, -1], [9, 8]])
    assert parity._has_target(score, item, target, 2).tolist() == [True, False, True]
    # with no more items than the list holds, every target that is not hidden is a hit
    assert parity._has_target(score, item, target[:, :1], 3).tolist() == [True, True, False]


def test_large_weights_stand_beside_the_towers(data, tmp_path, monkeypatch):
    monkeypatch.setattr(towers, "MAX_INSIDE", 1000)
    model, record = export_model("mf", data, tmp_path / "export")
    assert {"user_tower.onnx.data", "item_tower.onnx.data"} <= record["files"].keys()
    check_parity(model, record, tmp_path / "export", data)
    served = serve(tmp_path / "export", data.ids["user"]["user"].to_list(), 5)
    assert_same_lists(served, *exact(model, data, 5))


def test_without_an_index_the_readme_fills_one(data, tmp_path):
    model, record = export_model("dat", data, tmp_path / "export", index=NoIndex())
    assert "index.faiss" not in record["files"] and record["index"]["type"] == "none"
    assert record["parity"]["index"]["recall"] == 1.0
    readme = (tmp_path / "export" / "README.md").read_text()
    assert "no index of 40 item vectors" in readme and "index.faiss" not in readme
    served = serve(tmp_path / "export", data.ids["user"]["user"].to_list(), 5)
    assert_same_lists(served, *exact(model, data, 5))


def test_an_ivf_pq_index_is_compared_and_served(data, tmp_path):
    index = IVFPQ(2, None, 4, None, 2, [1, 2])
    _, record = export_model("dat", data, tmp_path / "export", index=index)
    assert record["index"]["plan"].startswith("index ivf_pq: 2 lists, 4 bytes")
    found = record["parity"]
    assert [point["nprobe"] for point in found["curve"]] == [1, 2]
    assert found["flat"]["recall"] == 1.0 > found["curve"][0]["recall"] > 0.1
    assert found["curve"][1]["recall"] == found["index"]["recall"]
    served = serve(tmp_path / "export", data.ids["user"]["user"].to_list()[:3], 5)
    assert [len(items) for items in served] == [5, 5, 5]


def vectors_today(model, data):
    with torch.no_grad():
        return encode_users(model, present_features(data, torch.arange(data.meta["num_users"])))


def test_files_of_users_are_written_some_users_at_a_time(exported, tmp_path, monkeypatch):
    folder, data, model, record = exported
    monkeypatch.setattr(tables, "CHUNK", 7)
    tables.write_user_vectors(model, data, tmp_path)
    names = [entry["name"] for entry in record["schema"]["user_tower"]["inputs"]]
    tables.write_users(data, names, tmp_path)
    for name, exact_columns in (
        ("user_vectors.parquet", ["user"]),  # a vector may differ in its last digit
        ("users.parquet", ["user", "features", "seen"]),
    ):
        file = pq.ParquetFile(tmp_path / name)
        assert file.num_row_groups == -(-data.meta["num_users"] // 7)
        found, whole = file.read(), pq.read_table(folder / name)
        assert found.schema.equals(whole.schema) and found.num_rows == whole.num_rows
        assert found.select(exact_columns).equals(whole.select(exact_columns))
    ids = pq.read_table(tmp_path / "users.parquet", columns=["user"])["user"].to_pylist()
    assert ids == sorted(ids)
    np.testing.assert_allclose(
        np.array(pq.read_table(tmp_path / "user_vectors.parquet")["vector"].to_pylist()),
        vectors_today(model, data).numpy(),
        atol=1e-6,
    )


def test_vocabularies_turn_raw_values_into_the_towers_inputs(exported):
    folder, data, _, record = exported
    raw = data.reader.read(data.preparation.data_dir).items
    brand = dict(
        zip(
            *pq.read_table(folder / "vocabularies" / "item.brand.parquet").to_pydict().values(),
            strict=True,
        )
    )
    ids = dict(
        zip(
            *pq.read_table(folder / "vocabularies" / "item.item_id.parquet").to_pydict().values(),
            strict=True,
        )
    )
    price = record["numeric"]["item.price"]
    features = next(data.corpus(CPU))
    rows = {item: row for row, item in enumerate(data.ids["item"]["item"].to_list())}
    for row in raw.filter(raw["item"].is_in(list(rows))).to_dicts():
        place = rows[row["item"]]
        assert ids.get(row["item"], 0) == features["item_id"][place]
        assert brand.get(row["brand"], 0) == features["brand"][place]
        assert (row["price"] - price["mean"]) / price["std"] == pytest.approx(
            float(features["price"][place]), abs=1e-5
        )


def test_safetensors_hold_the_weights_of_both_towers(exported):
    folder, data, model, _ = exported
    weights = {side: load_file(folder / f"{side}_tower.safetensors") for side in ("user", "item")}
    assert not weights["user"].keys() & weights["item"].keys()
    other = build("dat", data)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    missing = other.load_state_dict({**weights["user"], **weights["item"]}, strict=False)
    assert missing.missing_keys == [] and missing.unexpected_keys == []
    torch.testing.assert_close(
        encode_corpus_items(other, data), encode_corpus_items(model, data), rtol=0, atol=0
    )
    assert weights["user"]["user_augmented.weight"][0].equal(
        model.user_augmented.weight[1:].mean(0)
    )  # the cold policy's answer


def test_every_index_option_builds():
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from twotower.run.checks.checks import check_types

    vectors = np.random.default_rng(0).standard_normal((2000, 16), dtype=np.float32)
    for path in sorted((ROOT / "conf" / "index").glob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path))
        check_types("index", node)
        index = instantiate(node)
        assert index.name == path.stem
        assert index.build(vectors).ntotal == 2000
