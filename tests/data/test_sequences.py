"""data.positives=sequences: all positions of a user in one pass of the history's encoder."""

import copy
import itertools

import pytest
import torch

from tests.conftest import make_data
from tests.helpers.composition import compose_derived
from twotower.data.batches import features
from twotower.data.batches.loader import TrainLoader
from twotower.data.batches.sequence_order import begins
from twotower.data.readers.synthetic import Synthetic
from twotower.errors import UserError
from twotower.run.build import build_part
from twotower.types import TrainIndex

TRANSFORMER = ("model/history=transformer", "model.history.num_layers=2", "model.history.dropout=0")
LENGTH = 12
HISTORIES = {
    "mean": ("model/history=mean",),
    "attention": ("model/history=attention",),
    "gru": ("model/history=gru",),
    "transformer": TRANSFORMER,
    "bsarec": ("model/history=bsarec", "model.history.dropout=0"),
    "hstu": ("model/history=hstu", "model.history.dropout=0", "model.history.times=true"),
    "ligr": ("model/history=ligr", "model.history.dropout=0"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Users with 2 to some 20 training interactions, and histories of 12."""
    reader = Synthetic(60, 80, 3, 14, 8, seed=1)
    data = make_data(
        tmp_path_factory.mktemp("sequences"),
        reader,
        batch_size=64,
        positives="sequences",
        history_length=LENGTH,
        history_times=True,
    )
    data.setup()
    return data


def built(data, *overrides):
    config = compose_derived(f"data.history_length={LENGTH}", *overrides)
    data.negatives = build_part(config, "negatives")
    torch.manual_seed(0)
    return [build_part(config, part, schema=data.schema).double() for part in ("model", "loss")]


@torch.no_grad()
def without_positions(model):
    for name, parameter in model.named_parameters():
        if name.endswith("encoder.position"):
            parameter.zero_()


def position_and_user(data, index):
    return index.position, data.tables["interactions/user"][index.position].long()


def skewed_loader(batch_size=50, **settings):
    """1,500 users with 1 to 200 positions: most have few, some more than a history of 20."""
    generator = torch.Generator().manual_seed(3)
    num = (torch.rand(1500, generator=generator) ** -0.8).long().clamp(1, 200)
    user = torch.repeat_interleave(torch.arange(1500), num)
    position = torch.arange(len(user))
    return TrainLoader(
        position, user, "sequences", batch_size, 7, history_length=20, **settings
    ), user


def test_an_epoch_has_each_position_once_and_sequences_in_one_piece():
    loader, user = skewed_loader()
    batches = [index.position for index in loader]
    position = torch.cat(batches)
    assert torch.equal(position.sort().values, torch.arange(len(user)))
    assert [len(batch) for batch in batches[:-1]] == [50] * (len(batches) - 1)
    first = torch.searchsorted(user, user)
    sequences = int(begins(position.sort().values, first, 20).sum())
    pieces = int(begins(position, first[position], 20).sum())
    assert sequences <= pieces <= sequences + len(batches)
    again = [index.position for index in loader]  # the next epoch
    assert not torch.equal(position, torch.cat(again))
    assert not torch.equal(batches[0], again[0])


def test_batches_are_of_like_lengths_and_in_no_order():
    loader, user = skewed_loader()
    first = torch.searchsorted(user, user)
    used, needed, widths = 0, 0, []
    for index in loader:
        starts = begins(index.position, first[index.position], 20).nonzero().flatten()
        num = torch.diff(starts, append=torch.tensor([len(index.position)]))
        widths.append(int(num.max()))
        used, needed = used + len(num) * widths[-1], needed + len(index.position)
    assert used < 1.4 * needed  # four times with users in any order
    rising = sum(after >= before for before, after in itertools.pairwise(widths))
    assert 0.3 < rising / len(widths) < 0.8


@pytest.mark.parametrize("world_size", [2, 3])
def test_each_process_gets_whole_sequences(world_size):
    """Rows without gaps of the batch that one process alone would have, also of the last one."""
    alone, _ = skewed_loader(world_size * 17)
    loaders = [skewed_loader(17, rank=rank, world_size=world_size)[0] for rank in range(world_size)]
    for whole, *parts in zip(*map(list, (alone, *loaders)), strict=True):
        own = [part.position[part.rank :: world_size] for part in parts]
        assert torch.equal(torch.cat(own), whole.position)
        assert max(map(len, own)) - min(map(len, own)) <= 1


def test_the_order_goes_on_where_it_stopped():
    whole, _ = skewed_loader()
    expected = [index.position for _ in range(2) for index in whole]
    first, _ = skewed_loader()
    iterator = iter(first)
    found = [next(iterator).position for _ in range(4)]
    second, _ = skewed_loader()
    second.load_state_dict(first.state_dict())
    found += [index.position for _ in range(2) for index in second]
    torch.testing.assert_close(found, expected)


def test_sequences_by_hand():
    """User 0 has items 5, 6, 7, 8, 9, user 1 has 3; histories of 2: parts of 2, 1, 1, 1 and 1."""
    tables = {
        "interactions/item": torch.tensor([5, 6, 7, 8, 9, 3]),
        "offset": torch.tensor([0, 5]),
    }
    position, user = torch.tensor([0, 1, 2, 3, 5, 4]), torch.tensor([0, 0, 0, 0, 1, 0])
    found = features.sequences(tables, position, user, 2, 10)
    assert found.items.tolist() == [[0, 6], [6, 7], [7, 8], [0, 0], [8, 9]]
    assert found.row.tolist() == [0, 0, 1, 2, 3, 4]
    assert found.place.tolist() == [0, 1, 1, 1, 1, 1]  # item 6 is just before position 1


@pytest.mark.parametrize("length", [4, LENGTH])
def test_a_position_reads_the_item_before_it(data, length):
    for index in data.train_dataloader():
        position, user = position_and_user(data, index)
        args = (data.tables, position, user, length, data.schema.num_train_items)
        found, whole = features.sequences(*args), features.history(*args)
        item = found.items[found.row, found.place]
        assert torch.equal(item, whole[:, -1])  # 0: the first position has no item before it
        seen = [
            found.items[row, : place + 1] for row, place in zip(found.row, found.place, strict=True)
        ]
        enough = torch.tensor([int((own > 0).sum()) for own in seen])
        assert (enough >= (whole > 0).sum(1).clamp_max(length // 2)).all()


@pytest.mark.parametrize("length", [4, LENGTH])
def test_the_number_of_sequences_can_be_known_before(data, length):
    """From the lengths alone, for all batches; what is left is filled."""
    position, user = data.tables["position/train"], data.tables["interactions/user"]
    loader = TrainLoader(position, user, "sequences", 16, 5, history_length=length)
    rooms, needed = set(), []
    for _ in range(20):
        for index in loader:
            own = user[index.position].long()
            args = (data.tables, index.position, own, length, data.schema.num_train_items)
            room = loader.most_sequences(len(index.position))
            found, fixed = features.sequences(*args), features.sequences(*args, room=room)
            assert len(fixed.items) == room and torch.equal(fixed.row, found.row)
            assert torch.equal(fixed.items[: len(found.items)], found.items)
            assert torch.equal(fixed.place, found.place)
            rooms.add(room)
            needed.append(len(found.items))
    assert len(rooms) == 2  # of full and of last batches
    assert max(needed) >= max(rooms) - 2


@pytest.mark.parametrize("overrides", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("negatives", ["uniform", "shared_uniform"])
def test_loss_and_gradient_are_those_of_single_rows(data, overrides, negatives):
    """For users whose interactions all fit, and with positions that make no difference."""
    task = "bce" if negatives == "uniform" else "sampled_softmax"
    model, loss = built(
        data, "model=dat", f"negatives={negatives}", f"loss/task={task}", *overrides
    )
    without_positions(model)
    offset, short = data.tables["offset"], 0
    for index in data.train_dataloader():
        position, user = position_and_user(data, index)
        fits = position - offset[user] < LENGTH
        index, found = index._replace(position=position[fits]), []
        for positives in ("sequences", "interactions"):
            data.positives = positives
            batch = data.train_batch(index)
            model.zero_grad()
            total = loss(model(batch), batch).total
            total.backward()
            found.append((total.detach(), [parameter.grad for parameter in trained(model)]))
        data.positives = "sequences"
        short += len(batch.positive)
        torch.testing.assert_close(*found, rtol=0, atol=1e-10)
    assert short > 300


def test_all_positions_weigh_the_same(data):
    """The gradient of an epoch is the same however its positions are put into batches.

    An epoch's last batch has fewer rows, and of two processes one has fewer rows there.
    """
    rows_alone = ("loss.lambda3=0", "loss.reduction=positives")  # alignment is of whole batches
    task = ("negatives=corpus", "loss/task=full_softmax")
    model, loss = built(data, "model=dat", *TRANSFORMER, *task, *rows_alone)
    without_positions(model)
    data = copy.copy(data)
    data.tables = {**data.tables, "position/train": fitting(data)[1:]}
    in_order = [index.position for index in data.train_dataloader()]
    every = torch.cat(in_order)
    assert len(in_order) > 5 and len(every) % 64 == 23
    mixed = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))]
    epochs = {
        "sequences": list(data.train_dataloader()),
        "mixed": [TrainIndex(position, 0, num_rows=64) for position in mixed.split(64)],
        "single rows": [TrainIndex(position, 0, num_rows=64) for position in mixed.split(1)],
        "two processes": [*halves(data, 0), *halves(data, 1)],
    }
    found = {}
    for name, epoch in epochs.items():
        model.zero_grad()
        for index in epoch:
            batch = data.train_batch(index)
            (loss(model(batch), batch).total / index.world_size).backward()
        found[name] = [parameter.grad.clone() for parameter in trained(model)]
    for name in found:
        torch.testing.assert_close(found[name], found["sequences"], rtol=0, atol=1e-9, msg=name)


def test_the_only_batch_of_an_epoch_has_its_own_mean(data):
    """A batch size above the number of positions would shrink the loss, but not the alignment."""
    built(data)
    position, user = data.tables["position/train"], data.tables["interactions/user"]
    num, shares = len(position), []
    for size in (10**6, num, num - 1):
        loader = TrainLoader(position, user, "sequences", size, 5, history_length=LENGTH)
        shares.append([data.train_batch(index).share for index in loader])
    assert shares == [[1], [1], [1, 1 / (num - 1)]]


def fitting(data):
    """Training positions whose whole history is read; the others depend on where a cut is."""
    position = data.tables["position/train"].long()
    user = data.tables["interactions/user"][position].long()
    return position[position - data.tables["offset"][user] < LENGTH]


def trained(model):
    """Weights with a gradient but the positions', which depend on where a cut is."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not name.endswith("encoder.position"):
            yield parameter


def halves(data, rank):
    """The batches of one of two processes of 32 rows each."""
    position, user = data.tables["position/train"], data.tables["interactions/user"]
    return TrainLoader(position, user, "sequences", 32, data.seed, rank, 2, history_length=LENGTH)


def test_what_does_not_fit_is_refused(data):
    model, loss = built(data, "model=dat")
    history = model.user_embedding.names.index("history")
    model.user_embedding.embeddings[history].encoder = torch.nn.Identity()
    index = next(iter(data.train_dataloader()))
    with pytest.raises(UserError, match=r"add places\(index, weight\) to Identity"):
        model(data.train_batch(index))
    model, _ = built(data, "model=dat", *TRANSFORMER, "model.history.length=3")
    with pytest.raises(UserError, match=f"set model.history.length={LENGTH}"):
        model(data.train_batch(index))

    model, _ = built(data, "model=mind", "model.dim=6")
    with pytest.raises(UserError, match="set data.positives=interactions"):
        model(data.train_batch(index))


def test_a_run_learns_from_sequences(script):
    settings = (
        *("data.reader.num_users=150", "data.reader.num_items=80", "data.history_length=20"),
        *("data.reader.interactions_per_user=15", "model=dat", "data.positives=sequences"),
        *(TRANSFORMER[0], "trainer.max_epochs=2", "data.min_history=1"),
    )
    run = script("train", *settings, "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert script.metrics("run")["test"]["ndcg@10"] > 0
    refused = script("train", *settings, "data.shuffle_window=100")
    assert refused.returncode == 1 and "leave out data.shuffle_window" in refused.stderr
