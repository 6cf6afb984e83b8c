"""Indexes and the search through them."""

import faiss
import numpy as np
import pytest

from twotower.errors import UserError
from twotower.export import in_file
from twotower.export import index as index_module
from twotower.export.in_file import InFile, NoIndex
from twotower.export.index import HNSW, IVFPQ, Flat, search

RNG = np.random.default_rng(0)
ITEMS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)


def test_search_leaves_out_what_was_seen():
    rows, scores = search(Flat().build(ITEMS), np.array([[1, 0.5]], np.float32), np.array([0]), 2)
    assert rows.tolist() == [2, 1] and scores.tolist() == pytest.approx(
        [1.0, 0.5]
    )  # .6 + .4; item 0 would have had 1


def test_the_best_interest_scores_an_item_and_each_stands_once():
    rows, scores = search(
        Flat().build(ITEMS), np.array([[1, 0], [0, 2]], np.float32), np.array([], int), 3
    )
    assert rows.tolist() == [1, 2, 0] and scores.tolist() == pytest.approx([2.0, 1.6, 1.0])


def test_a_user_who_has_seen_nearly_all_gets_what_is_left():
    rows, _ = search(Flat().build(ITEMS), np.array([[1, 0]], np.float32), np.array([0, 1, 2]), 3)
    assert rows.tolist() == [3]


def test_hnsw_finds_nearly_all_and_keeps_its_setting_in_the_file(tmp_path):
    items, queries = (RNG.standard_normal((num, 8), dtype=np.float32) for num in (2000, 50))
    index = HNSW(16, 100, 77, []).build(items)
    wanted = Flat().build(items).search(queries, 10)[1]
    found = index.search(queries, 10)[1]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)]) > 0.95
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    assert faiss.read_index(str(tmp_path / "index.faiss")).hnsw.efSearch == 77


def test_hnsw_finds_as_many_as_are_wanted_beside_the_seen():
    items = RNG.standard_normal((3000, 8), dtype=np.float32)
    index = HNSW(16, 100, 16, []).build(items)
    found = []
    for query in RNG.standard_normal((10, 8), dtype=np.float32):
        order = np.argsort(-(items @ query))
        rows, _ = search(index, query[None], order[:400], 20)
        assert len(rows) == 20
        found.append(np.isin(rows, order[400:420]).mean())
    assert np.mean(found) > 0.85


def test_ivf_pq_learns_from_a_sample_and_is_filled_in_blocks(monkeypatch):
    monkeypatch.setattr(index_module, "BLOCK", 300)
    centres = 8 * RNG.standard_normal((20, 16), dtype=np.float32)
    items = np.repeat(centres, 100, 0) + RNG.standard_normal((2000, 16), dtype=np.float32)
    learnt, added = [], []
    ivf_pq = IVFPQ(20, None, 8, 1280, 4, [])
    kind = faiss.IndexIVFPQ
    train, add = kind.train, kind.add
    monkeypatch.setattr(kind, "train", lambda self, rows: (learnt.append(rows), train(self, rows)))
    monkeypatch.setattr(kind, "add", lambda self, rows: (added.append(len(rows)), add(self, rows)))
    built = ivf_pq.build(items)
    assert added == [300] * 6 + [200] and built.ntotal == 2000
    assert built.nlist == 20 and built.pq.M == 4 and built.nprobe == 4
    (sample,) = learnt
    rows = [int(np.flatnonzero((items == row).all(1))[0]) for row in sample]
    assert len(rows) == 1280 and rows == sorted(set(rows))  # none twice
    assert np.bincount(np.array(rows) // 100, minlength=20).min() > 50  # from all parts
    wanted = Flat().build(items).search(items[::40], 10)[1]
    found = built.search(items[::40], 10)[1]
    share = np.mean([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)])
    assert share > 0.2  # of 2,000 items; ten at random would be 0.005


def test_ivf_pq_derives_its_sizes_from_items_and_width():
    # 4 √1,000,000 lists; a byte for 4 numbers; 64 items for each list
    # memory: 1,000,000 * (16 + 8) + 4 * 64 * (4,000 + 256) bytes
    assert IVFPQ(None, None, 8, None, 16, []).plan(1_000_000, 64) == (
        "index ivf_pq: 4,000 lists, 16 bytes for an item, learnt from 256,000 of 1,000,000 items "
        "(62 MiB); 24 MiB in memory, up to twice that while lists grow"
    )
    # 39 items a list; 10 divides 50 and 12 does not; all items are fewer than 64 * 256
    small = IVFPQ(None, None, 8, None, 16, []).plan(1_000, 50)
    assert "25 lists, 10 bytes for an item, learnt from 1,000 of 1,000 items" in small
    assert "1 lists, 1 bytes" in IVFPQ(1, None, 1, None, 16, []).plan(5, 3)
    assert "6 bytes" in IVFPQ(1, 4, 12, None, 16, []).plan(5_000, 64)  # 4 codes of 12 bits


def test_the_memory_of_each_index_is_stated():
    assert "244 MiB in memory" in Flat().plan(1_000_000, 64)  # 4 * 64 bytes an item
    assert "488 MiB in memory" in HNSW(32, 40, 64, []).plan(1_000_000, 64)  # and 64 links of 4
    assert "stay on the disk" in NoIndex().plan(1_000_000, 64)


def test_vectors_on_the_disk_are_searched_as_the_exact_index_does(monkeypatch):
    items, users = (RNG.standard_normal((num, 8), dtype=np.float32) for num in (50, 5))
    wanted = Flat().build(items).search(users, 12)
    monkeypatch.setattr(in_file, "BLOCK", 7)  # the last block has one item
    found = NoIndex().build(items).search(users, 12)
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    assert InFile(items).search(users, 99)[1].shape == (5, 50)


def test_ivf_pq_names_what_does_not_fit():
    items = RNG.standard_normal((100, 8), dtype=np.float32)
    with pytest.raises(UserError, match="index.m=3 must divide the width of the vectors, 8"):
        IVFPQ(None, 3, 4, None, 1, []).build(items)
    with pytest.raises(UserError, match="learns 256 codes and there are 100 items: use index=flat"):
        IVFPQ(None, 4, 8, None, 1, []).build(items)
    with pytest.raises(UserError, match="index.training_items=20 are fewer than the 64 codes"):
        IVFPQ(64, 4, 4, 20, 1, []).build(items)
