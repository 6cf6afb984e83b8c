"""Indexes and the search through them."""

import faiss
import numpy as np
import pytest

from twotower.errors import UserError
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


def test_ivf_pq_names_what_does_not_fit():
    items = RNG.standard_normal((100, 8), dtype=np.float32)
    with pytest.raises(UserError, match="index.m=3 must divide the width of the vectors, 8"):
        IVFPQ(None, 3, 4, None, 1, []).build(items)
    with pytest.raises(UserError, match="learns 256 codes and there are 100 items: use index=flat"):
        IVFPQ(None, 4, 8, None, 1, []).build(items)
