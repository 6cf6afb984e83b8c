"""Batches against plain Python over the prepared arrays."""

import json

import pytest
import torch

from tests.conftest import make_data
from twotower.data.batches.loader import EvalLoader, TrainLoader
from twotower.data.prepare import store
from twotower.data.prepare.fingerprint import split_fingerprint
from twotower.data.readers.synthetic import Synthetic
from twotower.data.sampling import SharedUniform, Uniform
from twotower.errors import UserError


def history_of(data, position):
    """The known items just before ``position``, as ``item_id`` features, in plain Python."""
    user, item = data.tables["interactions/user"], data.tables["interactions/item"]
    length = data.options.history_length
    before = [p for p in range(position - length, position) if p >= 0 and user[p] == user[position]]
    values = [int(item[p]) + 1 if item[p] < data.schema.num_train_items else 0 for p in before]
    return [0] * (length - len(values)) + values


def test_training_batch_against_plain_python(data):
    data.negatives = Uniform(3, False)
    index = next(iter(data.train_dataloader()))
    batch = data.train_batch(index)
    item, category = data.tables["interactions/item"], data.tables["category"]
    assert len(batch.item_index.unique()) == len(batch.item_index)  # each distinct item once
    assert batch.item_index[batch.positive].tolist() == item[index.position].tolist()
    assert (batch.negative != batch.positive[:, None]).all()
    assert batch.category.tolist() == category[batch.item_index].tolist()
    assert batch.num_pairs == 16 * 4
    assert batch.user["history"].tolist() == [history_of(data, p) for p in index.position.tolist()]
    user = data.tables["interactions/user"][index.position].long()
    assert batch.user["user_id"].tolist() == (user + 1).tolist()
    assert batch.item["item_id"].tolist() == (batch.item_index + 1).tolist()
    assert torch.equal(batch.item["tags"], data.tables["item/tags"][batch.item_index])


def test_each_positive_has_its_own_weight(data):
    data.negatives = Uniform(3, False)
    assert data.train_batch(next(iter(data.train_dataloader()))).weight is None
    weight = torch.rand(len(data.tables["interactions/item"]))
    data.tables["interactions/weight"] = weight
    index = next(iter(data.train_dataloader()))
    assert torch.equal(data.train_batch(index).weight, weight[index.position])
    second = data.train_batch(index._replace(rank=1, world_size=2))
    assert torch.equal(second.weight, weight[index.position[1::2]])


def test_evaluation_batch_against_plain_python(data):
    index = list(data.test_dataloader())[1]
    batch = data.eval_batch(index)
    user, item = data.tables["interactions/user"], data.tables["interactions/item"]
    assert batch.target[:, 0].tolist() == item[index.position].tolist()
    expected = [
        (row, int(item[p]))
        for row, position in enumerate(index.position.tolist())
        for p in range(position)
        if user[p] == user[position]
    ]
    assert list(zip(batch.seen_row.tolist(), batch.seen_item.tolist(), strict=True)) == expected
    assert batch.user["history"].tolist() == [history_of(data, p) for p in index.position.tolist()]
    assert batch.group[:, 0, 0].all()
    for column, group in enumerate(("head", "middle", "tail")):
        assert (
            batch.group[:, 0, 1 + column].tolist()
            == (data.tables["group"][batch.target[:, 0]] == column).tolist()
        ), group


def test_items_that_training_never_saw_are_unknown_in_histories(data):
    index = next(iter(data.test_dataloader()))
    before = data.eval_batch(index).user["history"]
    data.schema = data.schema._replace(num_train_items=20)  # items from 20 on have no id row
    after = data.eval_batch(index).user["history"]
    assert (before > 20).any() and torch.equal(after, before * (before <= 20))


def test_a_target_is_never_in_its_own_history(data):
    data.negatives = Uniform(1, False)
    for index in data.train_dataloader():
        batch = data.train_batch(index)
        positive = batch.item["item_id"][batch.positive]
        assert not (
            batch.user["history"] == positive[:, None]
        ).any()  # synthetic users never take an item twice


def test_seen_items_stay_when_masking_is_off(tmp_path):
    data = make_data(tmp_path, mask_seen=False)
    data.setup()
    assert len(data.eval_batch(next(iter(data.test_dataloader()))).seen_row) == 0


def test_shared_draws_are_counted(data):
    data.negatives = SharedUniform(200, False)
    batch = data.train_batch(next(iter(data.train_dataloader())))
    assert batch.num_draws.sum() == 200 and batch.negative is None and batch.num_pairs == 16 * 201


def training(position, *args):
    return TrainLoader(position, torch.zeros_like(position), "interactions", *args)


def test_negatives_differ_between_epochs_steps_and_ranks_and_follow_the_seed(data):
    data.negatives = Uniform(3, False)

    def draws(seed, rank=0):
        loader = training(data.tables["position/train"], 16, seed, rank, 2)
        drawn = []
        for _ in range(2):
            for index in loader:
                batch = data.train_batch(
                    index._replace(position=data.tables["position/train"][:16])
                )  # the same positives
                drawn.append(batch.item_index[batch.negative].flatten().tolist())
        return drawn

    first = draws(1)
    assert len({tuple(d) for d in first}) == len(first)  # new ones at each step of each epoch
    assert first == draws(1)
    assert first != draws(2) and first != draws(1, rank=1)


def test_no_two_seeds_of_some_epochs_are_alike():
    """Nor is a step's the one that orders its epoch: draws of one generator twice are no draws."""
    seeds = []
    loader = training(torch.arange(20), 4, 5)
    order = loader._order
    loader._order = lambda seed: seeds.append(seed) or order(seed)
    for _ in range(3):
        seeds += [index.seed for index in loader]
    assert len(seeds) == len(set(seeds)) == 3 * (1 + 5)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_training_shards_cover_each_row_once(world_size):
    position = torch.arange(101)
    loaders = [training(position, 8, 5, rank, world_size) for rank in range(world_size)]
    batches = [
        [index.position[index.rank :: index.world_size] for index in loader] for loader in loaders
    ]
    assert len({len(b) for b in batches}) == 1 and len(batches[0]) == len(
        loaders[0]
    )  # nobody waits for a missing step
    seen = torch.cat([p for b in batches for p in b]).sort().values
    assert len(seen.unique()) == len(seen) >= 101 - (world_size - 1)


def test_drawn_by_users_each_user_counts_alike():
    """User 7 has one position, user 8 four, user 9 fifteen: each user gets a third of the draws.

    A user's draws spread over all positions of that user.
    """
    user = torch.tensor([6] * 100 + [7] + [8] * 4 + [9] * 15)  # user 6 is not in training
    loader = TrainLoader(torch.arange(100, 120), user, "users", 8, 5)
    epochs = [torch.cat([index.position for index in loader]) for _ in range(600)]
    assert all(len(epoch) == 20 for epoch in epochs)
    counts = torch.bincount(
        torch.cat(epochs) - 100, minlength=20
    )  # of 12,000 draws: 4,000 a user, deviation 52
    assert (counts.split([1, 4, 15])[0] - 4000).abs() < 200
    assert ((counts[1:5] - 1000).abs() < 120).all() and ((counts[5:] - 267).abs() < 80).all()


def test_an_epoch_of_users_or_of_interactions():
    with pytest.raises(
        UserError, match="data.positives must be one of interactions, users, sequences, got 'pairs'"
    ):
        TrainLoader(torch.arange(3), torch.arange(3), "pairs", 8, 5)


@pytest.mark.parametrize("positives", ["interactions", "users", "sequences"])
def test_positions_with_a_short_history_can_be_left_out(positives):
    """User 0 is in no part of training, 1 has one interaction, 2 has three and 3 has five."""
    user = torch.tensor([0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 3])
    found = set()
    loader = TrainLoader(torch.arange(2, 11), user, positives, 4, 5, min_history=2)
    for _ in range(30):
        found |= {position for index in loader for position in index.position.tolist()}
    assert found == {5, 8, 9, 10} and len(loader) == 1
    for value in (None, 0):
        loader = TrainLoader(torch.arange(2, 11), user, positives, 4, 5, min_history=value)
        assert len(loader.position) == 9
    with pytest.raises(UserError, match="data.min_history=5 leaves no training interaction"):
        TrainLoader(torch.arange(2, 11), user, positives, 4, 5, min_history=5)
    with pytest.raises(UserError, match="data.min_history must be"):
        TrainLoader(torch.arange(2, 11), user, positives, 4, 5, min_history=-1)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_shards_cover_each_row_once_without_padding(world_size):
    position, num_targets = torch.arange(101), torch.arange(1, 102)
    shards = [
        index
        for rank in range(world_size)
        for index in EvalLoader(position, num_targets, 8, rank, world_size)
    ]
    assert (
        torch.cat([index.position for index in shards]).sort().values.tolist() == position.tolist()
    )
    assert all((index.num_targets == index.position + 1).all() for index in shards)


def test_loader_goes_on_where_it_stopped():
    position = torch.arange(50)
    whole = training(position, 8, 5)
    expected = [(i.position.tolist(), i.seed) for _ in range(2) for i in whole]
    first = training(position, 8, 5)
    iterator = iter(first)
    found = [(i.position.tolist(), i.seed) for i in (next(iterator) for _ in range(3))]
    second = training(position, 8, 5)
    second.load_state_dict(first.state_dict())
    found += [(i.position.tolist(), i.seed) for _ in range(2) for i in second]
    assert found == expected
    assert expected[:7] != expected[7:]  # epochs are shuffled anew


def test_second_start_reads_the_cache(tmp_path, monkeypatch):
    first = make_data(tmp_path)
    first.setup()
    second = make_data(tmp_path)
    monkeypatch.setattr(Synthetic, "read", lambda *_: pytest.fail("prepared twice"))
    second.setup()
    assert second.fingerprint == first.fingerprint
    monkeypatch.undo()
    other = make_data(tmp_path, k_core=5)
    other.setup()
    assert other.fingerprint != first.fingerprint
    assert not list((tmp_path / "cache").glob(".synthetic*"))  # nothing half-written is left


def test_the_split_is_known_whatever_the_features(tmp_path):
    other_world = Synthetic(60, 40, 3, 6, 8, seed=2)
    made = [
        make_data(tmp_path, **options)
        for options in ({}, {"history_length": 0}, {"reader": other_world})
    ]
    for data in made:
        data.setup()
    assert len({data.fingerprint for data in made}) == 3
    plain, history, other = (split_fingerprint(data.meta, data.ids) for data in made)
    assert plain == history != other


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "meta"])
def test_a_damaged_cache_is_found_and_named(tmp_path, capsys, damage):
    make_data(tmp_path).setup()
    folder = next(path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    file = folder / "interactions.item.npy"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-8])
    elif damage == "remove":
        file.unlink()
    else:
        (folder / "meta.json").write_text(json.dumps({}))
    with pytest.raises(store.DamagedError, match=rf"{folder.name}.*delete"):
        store.load_folder(folder)
    make_data(tmp_path).setup()
    assert f"{folder} are damaged" in capsys.readouterr().err


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        store.np,
        "save",
        lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        make_data(tmp_path).setup()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
