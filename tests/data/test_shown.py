"""Given negatives: what was shown beside a positive and not chosen."""

import numpy as np
import polars as pl
import pytest
import torch

from tests.helpers.frames import KEEP_ALL, make_frames
from tests.helpers.table import read, trained_hit_rates
from twotower.data.batches.train_pairs import TrainPairs
from twotower.data.prepare.prepare import prepare
from twotower.data.sampling import Mixed, Positives, Uniform
from twotower.data.shown_negatives import Shown
from twotower.errors import UserError


def test_a_column_of_lists_or_of_text(tmp_path):
    clicks = "user,item,beside\n1,5,6|7\n1,6,\n1,7,5\n"
    frames = read(tmp_path, clicks, columns__shown="beside")
    assert frames.interactions["shown"].to_list() == [[6, 7], None, [5]]
    assert "shown" not in read(tmp_path, clicks.replace("beside", "shown")).interactions.columns
    words = "user,item,beside\n1,a,b | c\n1,b,a\n1,c,x\n"
    frames = read(tmp_path, words, columns__shown="beside")
    assert frames.interactions["shown"].to_list() == [["b", "c"], ["a"], ["x"]]


PAGES = "page,item,place\np1,7,1\np1,5,2\np1,6,3\np2,5,1\np9,8,1\np3,,1\n,5,1\n"
VISITS = "user,item,page\n1,5,p1\n1,6,\n1,7,p2\n2,7,p4\n"


def test_a_table_of_pages(tmp_path):
    (tmp_path / "pages.csv").write_text(PAGES)
    frames = read(tmp_path, VISITS, columns__shown="page", pages="pages.csv")
    # the chosen item is one of its page, which losses mask; p4 is not in the table
    assert frames.interactions["shown"].to_list() == [[5, 6, 7], None, [5], None]
    (tmp_path / "pages.csv").write_text(PAGES.replace("item", "product").replace("p", "q"))
    visits = VISITS.replace("page", "qage").replace("p", "q")
    settings = {"columns__shown": "qage", "pages": "pages.csv"}
    with pytest.raises(UserError, match="pages.csv has no column item; it has qage, qroduct"):
        read(tmp_path, visits, **settings)
    frames = read(tmp_path, visits, **settings, pages_item="qroduct")
    assert frames.interactions["shown"].to_list()[0] == [5, 6, 7]
    (tmp_path / "pages.csv").write_text(PAGES.replace("p", "x").replace("xage", "page"))
    with pytest.raises(UserError, match="none of the pages of the interactions .column page. is"):
        read(tmp_path, VISITS, columns__shown="page", pages="pages.csv")
    with pytest.raises(UserError, match="pages needs the column that names the page"):
        read(tmp_path, VISITS, pages="pages.csv")


def test_numbers_of_pages_and_items_may_be_of_several_types(tmp_path):
    pages = pl.DataFrame({"page": [1.0, 1.0, 2.0], "item": ["a", "b", "c"]})
    pages.write_parquet(tmp_path / "pages.parquet")
    visits = "user,item,page\n1,a,1\n1,b,2\n1,c,3\n"
    frames = read(tmp_path, visits, columns__shown="page", pages="pages.parquet")
    assert frames.interactions["shown"].to_list() == [["a", "b"], ["c"], None]


def test_prepared_numbers_by_hand():
    # items 10 and 20 are in training, 30 (validation) and 40 (test) are not, 99 is nowhere
    shown = [[20, 30], None, [10], [], [99, 10, 20], [10]]
    rows = [(1, 10, 1), (1, 20, 2), (1, 30, 3), (1, 40, 4), (2, 10, 1), (2, 20, 2)]
    frames = make_frames(
        [(*row, own) for row, own in zip(rows, shown, strict=True)],
        columns=("user", "item", "time", "shown"),
    )
    found = prepare(frames, KEEP_ALL).arrays["interactions/shown"]
    assert found.dtype == np.int32
    assert found.tolist() == [[1, -1, -1], [-1] * 3, [0, -1, -1], [-1] * 3, [-1, 0, 1], [0, -1, -1]]


def positives(shown, rank=0, world_size=1):
    # users 0 and 1 have the items 0 and 1, and 2
    user, item = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
    pairs = TrainPairs(lambda: (user, item), 9)
    shown = None if shown is None else torch.tensor(shown)
    return Positives(item, user, pairs, rank, world_size, shown)


SHOWN = [[3, 4, 5], [0, -1, 6], [-1, -1, -1]]


def test_each_positive_has_its_own():
    torch.manual_seed(0)
    found = Shown(2, False)(positives(SHOWN))
    assert found.item.shape == (3, 2) and found.num == 2
    first, second, third = (set(row) for row in found.item.tolist())
    assert first < {3, 4, 5} and len(first) == 2
    assert second == {0, 6} and third == {2}  # none was shown: copies of the positive
    drawn = {tuple(sorted(Shown(2, False)(positives(SHOWN)).item[0].tolist())) for _ in range(50)}
    assert drawn == {(3, 4), (3, 5), (4, 5)}  # without replacement, each pair in turn
    more = Shown(5, False)(positives(SHOWN)).item
    assert sorted(more[0].tolist()) == [0, 0, 3, 4, 5] and more[2].tolist() == [2] * 5


def test_what_the_user_chose_at_another_time_is_left_out():
    found = Shown(2, True)(positives(SHOWN)).item
    assert set(found[1].tolist()) == {1, 6}  # 0 is a positive of this user, 1 the row's own


def test_a_process_has_the_rows_of_the_whole_batch():
    torch.manual_seed(0)
    whole = Shown(2, False)(positives(SHOWN)).item
    for rank in (0, 1):
        torch.manual_seed(0)
        own = Shown(2, False)(positives(SHOWN, rank, 2)).item
        assert torch.equal(own, whole[rank::2])


def test_mixed_with_drawn_ones():
    found = Mixed(Shown(2, False), Uniform(3, False))(positives(SHOWN))
    assert found.item.shape == (3, 5) and found.num == 5 and found.log_q.dim() == 0
    assert set(found.item[1, :2].tolist()) == {0, 6}


def test_weights_of_the_columns():
    assert Shown(2, False)(positives(SHOWN)).weight is None
    assert Shown(2, False, 0.5)(positives(SHOWN)).weight.tolist() == [0.5, 0.5]
    both = Mixed(Shown(2, False, 3.0), Uniform(1, False))(positives(SHOWN))
    assert both.weight.tolist() == [3, 3, 1] and both.weight.shape == both.item.shape[1:]
    assert Mixed(Shown(2, False), Uniform(1, False))(positives(SHOWN)).weight is None
    with pytest.raises(UserError, match="negatives.weight must be"):
        Shown(2, False, 0)


def test_data_that_do_not_tell():
    with pytest.raises(UserError, match="name their column, data.reader.columns.shown"):
        Shown(2, True)(positives(None))


def shop(folder, num_users=300, num_items=100, num_liked=20):
    """The last items are liked best and rarely shown; the last two pages of a user show all items.

    So clicks alone speak for what is shown often, pages for what is liked.
    """
    rng = np.random.default_rng(0)
    liked = np.arange(num_items) >= num_items - num_liked
    rows = []
    for user in range(num_users):
        left = np.ones(num_items, dtype=bool)
        for time in range(10):
            page = rng.permutation(np.flatnonzero(left & ~liked))[:8]
            if time >= 8 or rng.random() < 0.1:
                page = np.append(page, rng.permutation(np.flatnonzero(left & liked))[:2])
            best = rng.choice(page[liked[page]] if liked[page].any() else page)
            left[best] = False
            others = "|".join(str(item) for item in page if item != best)
            rows.append((user, int(best), time, others))
    clicks = pl.DataFrame(rows, schema=["user", "item", "step", "beside"], orient="row")
    clicks.write_csv(folder / "clicks.csv")


@pytest.mark.slow
def test_shown_items_teach_what_is_not_chosen(script):
    shop(script.folder)
    settings = [
        *("data.reader.columns.shown=beside", "model=two_tower", "model.user_features=[user_id]"),
        *("loss/task=bce", "loss.task.temperature=0.2"),
    ]
    variants = {
        "shown": "negatives=shown negatives.weight=2",
        "uniform": "negatives=uniform",
    }
    found = trained_hit_rates(script, settings, variants)
    # of about 18 liked items that are left ten are in the list: .55 is the best possible
    assert found["shown"] > 0.4 and found["uniform"] < 0.2, found
