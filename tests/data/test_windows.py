"""Data beyond memory: the windowed order, and batches and excluded positives as in memory."""

from functools import partial

import pytest
import torch

from tests.conftest import make_data
from tests.helpers.runs import WORLD
from twotower.data.batches import rows
from twotower.data.batches.loader import TrainLoader
from twotower.data.batches.train_pairs import MappedPairs, TrainPairs
from twotower.data.batches.windows import BLOCKS, WindowOrder
from twotower.data.sampling import Corpus, Popularity, Uniform
from twotower.errors import UserError


def ignore(first, last):
    pass


def loader(num, window, seed=5, rank=0, world_size=1, batch_size=8, read_ahead=ignore):
    position = torch.arange(num, dtype=torch.int32) * 3  # positions are not places
    return TrainLoader(
        position,
        torch.zeros(3 * num),
        "interactions",
        batch_size,
        seed,
        rank,
        world_size,
        window,
        read_ahead,
    )


@pytest.mark.parametrize(
    ("num", "window"), [(1, 1), (1000, 1), (1000, 130), (1001, 640), (640, 640), (999, 5000)]
)
def test_the_order_is_a_permutation_whatever_the_slices(num, window):
    order = WindowOrder(num, window, 3, ignore)
    whole = order[0:num]
    assert whole.sort().values.tolist() == list(range(num))
    for size in (1, 7, 333):
        assert torch.equal(
            torch.cat([order[start : start + size] for start in range(0, num, size)]), whole
        )
    fresh = WindowOrder(num, window, 3, ignore)
    assert torch.equal(fresh[num // 2 : num], whole[num // 2 :])
    assert num == 1 or not torch.equal(WindowOrder(num, window, 4, ignore)[0:num], whole)


def test_a_window_shuffles_across_its_own_blocks():
    num, block = 10_003, 5
    order = WindowOrder(num, BLOCKS * block, 1, ignore)
    whole, start, unsorted, shuffles = order[0:num], 0, 0, set()
    while start < num:  # by hand: a window is the places until 64 blocks are complete
        own = whole[start : start + BLOCKS * block]
        if (own // block).unique().numel() > BLOCKS:  # the window with the short block, 3 places
            own = own[: (BLOCKS - 1) * block + 3]
        blocks, counts = (own // block).unique(return_counts=True)
        assert counts[blocks < num // block].eq(block).all() and len(blocks) <= BLOCKS
        shuffles.add(tuple(own.argsort().tolist()))
        unsorted += (
            len((own[:40] // block).unique()) > 20
        )  # 40 places of 64 blocks: no block goes first
        start += len(own)
    assert (
        unsorted >= 30 and len(shuffles) == len(order.starts) == 32
    )  # each is shuffled in its own way
    assert (whole[:320] // block).sort().values.diff().max() > 2  # blocks come from all over


def test_a_full_shuffle_where_the_window_covers_the_data():
    """Each place is equally likely anywhere: the mean place of the first tenth is that of all."""
    firsts = torch.cat([WindowOrder(1000, 1000, seed, ignore)[0:100] for seed in range(100)])
    assert firsts.float().mean().item() == pytest.approx(499.5, abs=10)  # deviation 2.9
    assert firsts.float().std().item() == pytest.approx(288.7, abs=8)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_position_once_an_epoch_and_every_epoch_another_order(world_size):
    loaders = [loader(1001, 130, rank=rank, world_size=world_size) for rank in range(world_size)]
    epochs = []
    for _ in range(2):
        batches = [list(each) for each in loaders]
        for step in zip(*batches, strict=True):  # all draw the same order and keep their own rows
            assert all(torch.equal(index.position, step[0].position) for index in step)
        seen = torch.cat(
            [index.position[index.rank :: world_size] for each in batches for index in each]
        )
        assert len(seen.unique()) == len(seen) >= 1001 - (world_size - 1) and (seen % 3 == 0).all()
        epochs.append(torch.cat([index.position for index in batches[0]]))
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("steps", [0, 3, 17, 125, 126, 200])
def test_resumed_equals_uninterrupted(steps):
    whole = loader(1001, 130)
    expected = [(i.position.tolist(), i.seed) for _ in range(2) for i in whole]
    first = loader(1001, 130)
    found = []
    while len(found) < steps:
        for index in first:
            found.append((index.position.tolist(), index.seed))
            if len(found) == steps:
                break
    second = loader(1001, 130)
    second.load_state_dict(first.state_dict())
    while len(found) < len(expected):
        found += [(i.position.tolist(), i.seed) for i in second]
    assert found == expected


def test_a_resumed_epoch_reads_this_window_and_the_next_and_no_others():
    reads = []
    late = loader(6400, 640, read_ahead=lambda first, last: reads.append((first, last)))
    late.load_state_dict({"epoch": 0, "next_batch": 405})  # place 3240 of the order: in window 5
    order = late._order(late._seed(0))
    order[3240:3248]
    order._windows[6].result()
    assert sorted(reads) == sorted(
        (s, s + 10) for window in (5, 6) for s in order.starts[window].tolist()
    )
    order[3248:3256]
    assert len(reads) == 2 * BLOCKS and len(order._windows) == 2  # no window is made twice


def test_the_next_window_is_always_being_made():
    order = WindowOrder(6400, 640, 1, ignore)
    for window in range(9):
        order[int(order.bounds[window]) : int(order.bounds[window]) + 8]
        assert order._windows.keys() == {window, window + 1}


def test_a_window_that_covers_the_data_is_one_window():
    for num in (100, 1000, 1_000_063):
        assert len(WindowOrder(num, num, 1, ignore).starts) == 1


def test_read_ahead_touches_existing_rows(data):
    num = len(data.tables["position/train"])
    for first in range(0, num, 7):
        rows.touch(data.tables, first, min(first + 7, num))


def test_batches_are_those_of_data_in_memory(tmp_path):
    full, windowed = make_data(tmp_path), make_data(tmp_path, shuffle_window=64)
    for data in (full, windowed):
        data.setup()
    for sampler in (
        Uniform(3, True),
        Corpus(True),
        Popularity(20, 0.5, False, True),
        Popularity(20, 0.5, True, True),
    ):
        full.negatives = windowed.negatives = sampler
        for index in windowed.train_dataloader():
            one, other = full.train_batch(index), windowed.train_batch(index)
            for own, mapped in zip(one, other, strict=True):
                pairs = (
                    [(own[name], mapped[name]) for name in own]
                    if isinstance(own, dict)
                    else [(own, mapped)]
                )
                assert all(
                    torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs
                )


def test_pairs_of_a_batch_are_the_pairs_of_all_data():
    """Random users, some without training rows, with repeated pairs and held-out rows."""
    generator = torch.Generator().manual_seed(0)
    num_users, num_items = 50, 30
    user = torch.randint(num_users, (900,), generator=generator).sort().values
    user = user[(user % 7 != 0)]
    item = torch.randint(num_items, (len(user),), generator=generator)
    offset = torch.searchsorted(user, torch.arange(num_users + 1))
    place = torch.arange(len(user)) - offset[user]
    num_train = (
        (offset[1:] - offset[:-1]) * 2 // 3 * (torch.arange(num_users) % 5 > 0)
    )  # none of every fifth user
    position = (place < num_train[user]).nonzero()[:, 0].int()
    tables = {
        "interactions/item": item.int(),
        "interactions/user": user.int(),
        "offset": offset,
        "position/train": position,
    }
    train = {(int(user[p]), int(item[p])) for p in position}
    memory = TrainPairs(lambda: (user[position].int(), item[position]), num_items)
    mapped = MappedPairs(memory.rows, num_items, tables, torch.device("cpu"))
    some = torch.randint(num_users, (40,), generator=generator)
    items = torch.arange(num_items)
    expected = [[(u, i) in train for i in range(num_items)] for u in some.tolist()]
    assert (
        mapped.contain(some[:, None], items).tolist()
        == memory.contain(some[:, None], items).tolist()
        == expected
    )
    few = torch.tensor([2, 3, 11, 29])
    assert torch.equal(mapped.mask(some, few), torch.tensor(expected)[:, few])
    assert torch.equal(mapped.item_count, memory.item_count)
    assert all(
        torch.equal(a, b)
        for a, b in zip(mapped.distribution(0.5), memory.distribution(0.5), strict=True)
    )


def test_counts_by_chunks_are_counts(data, monkeypatch):
    monkeypatch.setattr("twotower.data.batches.train_pairs.CHUNK", 100)
    known = (partial(rows.train_rows, data.tables), data.schema.num_train_items)
    assert torch.equal(
        MappedPairs(*known, data.tables, torch.device("cpu")).item_count,
        TrainPairs(*known).item_count,
    )


def test_impossible_windows_are_refused(tmp_path):
    with pytest.raises(UserError, match="data.positives=users .* leave out data.shuffle_window"):
        TrainLoader(torch.arange(9), torch.arange(9), "users", 8, 5, shuffle_window=4)
    with pytest.raises(UserError, match="data.min_history .* leave out data.shuffle_window"):
        TrainLoader(
            torch.arange(9), torch.zeros(9), "interactions", 8, 5, shuffle_window=4, min_history=1
        )
    with pytest.raises(UserError, match="data.shuffle_window must be a finite number >= 1, got 0"):
        TrainLoader(torch.arange(9), torch.arange(9), "interactions", 8, 5, shuffle_window=0)


@pytest.mark.slow
def test_a_model_learns_from_windows_as_from_a_full_shuffle(script):
    """14,000 interactions in windows of 640, stretches of 10: half a user each."""
    values = {}
    for window in ("null", "640"):
        run = script(
            "train",
            *WORLD,
            "model=dat",
            f"data.shuffle_window={window}",
            f"hydra.run.dir=w{window}",
        )
        assert run.returncode == 0, run.stderr
        values[window] = script.metrics(f"w{window}")["test"]["ndcg@10"]
    assert values["640"] > 0.9 * values["null"]


@pytest.mark.gpu
def test_on_a_gpu_large_tables_stay_on_the_host(tmp_path):
    full, windowed = make_data(tmp_path), make_data(tmp_path, shuffle_window=64)
    for data in (full, windowed):
        data.setup()
        data.negatives = Corpus(True)
    index = next(iter(windowed.train_dataloader()))
    index = index._replace(position=index.position.cuda())
    batches = [data.train_batch(index) for data in (full, windowed)]
    assert (
        windowed.tables["interactions/item"].device.type
        == windowed.tables["user/segment"].device.type
        == "cpu"
    )
    assert windowed.tables["category"].device.type == batches[1].excluded.device.type == "cuda"
    assert torch.equal(batches[0].excluded, batches[1].excluded)
    assert torch.equal(batches[0].user["history"], batches[1].user["history"])
