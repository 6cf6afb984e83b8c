"""MovieLens: hand-made files in the official formats, and the real ones if present."""

import os
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import make_data
from tests.helpers.movielens import make_1m
from twotower.data.readers.movielens import MovieLens
from twotower.errors import UserError

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data"))


def make_100k(folder: Path) -> Path:
    top = folder / "ml-100k"
    top.mkdir(parents=True)
    rows = [f"{user}\t{item}\t3\t{978300000 + item}" for user in (1, 2) for item in (1, 2, 3)]
    (top / "u.data").write_text("\n".join(rows) + "\n")
    (top / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|V3N4P\n")
    (top / "u.genre").write_text("unknown|0\nAction|1\nDrama|2\n\n")
    items = [
        "1|Été (1995)|01-Jan-1995||http://x|0|1|1",
        "2|unknown||||1|0|0",
        "3|Three (1990)|01-Jan-1990||http://y|0|0|1",
    ]
    (top / "u.item").write_bytes("\n".join(items).encode("latin-1"))
    return top


RATINGS = [
    "userId,movieId,rating,timestamp",
    *(f"{user},{item},{item / 2},{978300000 + item}" for user in (1, 2) for item in (1, 2, 3)),
]
MOVIES = [
    "movieId,title,genres",
    '1,"American President, The (1995)",Comedy|Drama',
    '2,"Été, ""A"" (2001) ",Drama',
    "3,Three,(no genres listed)",
]


def make_csv(
    folder: Path,
    top: str = "ml-latest-small",
    ratings: list[str] = RATINGS,
    movies: list[str] = MOVIES,
) -> Path:
    """In the official way: UTF-8, lines end in CRLF, titles with commas are quoted."""
    (folder / top).mkdir(parents=True)
    for name, lines in (("ratings", ratings), ("movies", movies)):
        (folder / top / f"{name}.csv").write_bytes(
            "".join(f"{line}\r\n" for line in lines).encode()
        )
    return folder / top


def reader(variant="1m", **changes):
    settings = {
        "url": "http://127.0.0.1:9/none.zip",
        "sha256": "0",
        "num_ratings": None,
        "primary_category": "most_frequent",
    }
    return MovieLens(variant, **{**settings, "zip_digits": 2, **changes})


def test_1m_by_hand(tmp_path):
    make_1m(tmp_path)
    frames = reader().read(tmp_path)
    assert frames.interactions.row(5, named=True) == {
        "user": 2,
        "item": 2,
        "value": 3.0,
        "time": 978300002,
    }
    assert frames.users["zip"].to_list() == ["48", "70"]
    assert frames.items["title"].to_list()[:2] == ["Été (1995)", "Two: the 2nd (2001)"]
    assert frames.items["year"].to_list() == [1995, 2001, None, 1980]
    assert frames.items["genres"].to_list()[2] == ["Western", "Drama"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("most_frequent", ["Drama", "Drama", "Drama", "Comedy"]),  # Drama 3, Comedy 2, Western 1
        ("rarest", ["Comedy", "Drama", "Western", "Comedy"]),
        ("first", ["Comedy", "Drama", "Western", "Comedy"]),
    ],
)
def test_primary_category_rules(tmp_path, rule, expected):
    make_1m(tmp_path)
    assert reader(primary_category=rule).read(tmp_path).items["category"].to_list() == expected


def test_100k_by_hand(tmp_path):
    make_100k(tmp_path)
    frames = reader("100k").read(tmp_path)
    assert frames.items["genres"].to_list() == [["Action", "Drama"], ["unknown"], ["Drama"]]
    assert frames.items["year"].to_list() == [1995, None, 1990]
    assert frames.users["age"].to_list() == ["[18, 25)", "[50, 56)"]
    assert len(frames.interactions) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1::2::3::4::5", "line 9 has 5 fields, expected 4"),
        ("1::2::3", "line 9 has 3 fields, expected 4"),
        ("1::2::good::4", "line 9: value is not a number"),
        ("1::::3::4", "line 9: item is not a number"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    with (make_1m(tmp_path) / "ratings.dat").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=rf"ratings.dat {message}"):
        reader().read(tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    make_1m(tmp_path)
    with pytest.raises(UserError, match=r"ratings.dat has 8 rows, 1,000,209 expected.*truncated"):
        reader(num_ratings=1_000_209).read(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    (make_1m(tmp_path) / "users.dat").write_text("\n")
    with pytest.raises(UserError, match="users.dat is empty"):
        reader().read(tmp_path)


def test_offline_names_the_file_to_fetch(tmp_path):
    with pytest.raises(
        UserError,
        match=r"cannot download .*none.zip.*by hand.*ml-1m/ratings.dat exists, "
        r"or set paths.data_dir",
    ):
        reader().fetch(tmp_path)


def test_a_read_only_folder_with_the_files_is_enough(tmp_path):
    top = make_1m(tmp_path / "raw")
    before = sorted(path.name for path in (tmp_path / "raw").rglob("*"))
    data = make_data(tmp_path, reader())
    data.setup()
    assert (
        sorted(path.name for path in top.parent.rglob("*")) == before
    )  # no lock, no temporary file
    assert data.schema.num_items == 4


def test_changed_raw_files_are_prepared_anew(tmp_path):
    top = make_1m(tmp_path / "raw")
    make_data(tmp_path, reader()).setup()
    with (top / "ratings.dat").open("a") as file:
        file.write("1::2::3::4::5\n")
    with pytest.raises(UserError, match="5 fields"):
        make_data(tmp_path, reader()).setup()


def test_csv_by_hand(tmp_path):
    make_csv(tmp_path)
    frames = reader("latest_small", sha256=None, zip_digits=None).read(tmp_path)
    assert frames.interactions.row(4, named=True) == {
        "user": 2,
        "item": 2,
        "value": 1.0,
        "time": 978300002,
    }
    assert frames.interactions["value"].to_list()[0] == 0.5  # half stars
    sizes = {name: kind for name, kind in frames.interactions.schema.items() if name != "time"}
    assert sizes == {
        "user": pl.Int32,
        "item": pl.Int32,
        "value": pl.Float32,
    }  # 32 million rows must fit
    assert frames.items["title"].to_list()[:2] == [
        "American President, The (1995)",
        'Été, "A" (2001) ',
    ]
    assert frames.items["year"].to_list() == [1995, 2001, None]
    assert frames.items["genres"].to_list() == [["Comedy", "Drama"], ["Drama"], []]
    assert frames.items["category"].to_list() == ["Drama", "Drama", None]
    assert frames.users["user"].sort().to_list() == [1, 2] and not frames.user_features


@pytest.mark.parametrize("rule", ["first", "rarest", "most_frequent"])
def test_no_genres_are_no_category(tmp_path, rule):
    make_csv(tmp_path, "ml-25m")
    data = make_data(tmp_path, reader("25m", primary_category=rule), data_dir=str(tmp_path))
    data.setup()
    assert data.schema.num_items == 3 and "(no genres listed)" not in data.meta["categories"]
    assert sorted(data.tables["category"].tolist())[0] == -1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,3.5", "line 8 has 3 fields, expected 4"),
        ("1,2,3.5,4,5", "line 8 has 5 fields, expected 4"),
        ("1,2,good,4", "line 8 has 'good' for rating"),
        ("1,2,3.5,", "line 8 has '' for timestamp"),
        ("1,3000000000,3.5,4", "line 8 has '3000000000' for movieId"),
    ],
)
def test_a_bad_csv_row_is_named(tmp_path, line, message):
    make_csv(tmp_path, ratings=[*RATINGS, line])
    with pytest.raises(UserError, match=rf"ratings.csv {message}"):
        reader("latest_small").read(tmp_path)


@pytest.mark.parametrize(
    ("movies", "message"),
    [
        ([*MOVIES, "4,Four, the,Drama"], "movies.csv line 5 does not read"),
        ([*MOVIES, "four,Four,Drama"], "movies.csv line 5 does not read"),
        (
            ["id,title,genres", *MOVIES[1:]],
            "movies.csv line 1 does not read 'movieId,title,genres'",
        ),
        ([*MOVIES[:2], '2,"Open,Drama', *MOVIES[3:]], "movies.csv line 3 does not read"),
        ([*MOVIES, "99999999999,Four,Drama"], "movies.csv line 5 does not read"),
        ([*MOVIES, "\N{ARABIC-INDIC DIGIT THREE},Four,Drama"], "movies.csv line 5 does not read"),
        ([*MOVIES, '4,"' + "a" * 200_000], "movies.csv line 5 is damaged"),
        ([""], "movies.csv is empty"),
    ],
)
def test_a_bad_film_is_named(tmp_path, movies, message):
    make_csv(tmp_path, movies=movies)
    with pytest.raises(UserError, match=message):
        reader("latest_small").read(tmp_path)


def test_a_csv_of_another_kind_is_refused(tmp_path):
    make_csv(tmp_path, ratings=["user,movie,rating,timestamp", *RATINGS[1:]])
    with pytest.raises(UserError, match=r"ratings.csv has no column userId"):
        reader("latest_small").read(tmp_path)


def test_10m_by_hand(tmp_path):
    top = tmp_path / "ml-10M100K"
    top.mkdir()
    (top / "ratings.dat").write_text("1::122::4.5::838985046\n2::1::0.5::838983525\n")
    (top / "movies.dat").write_text(
        "1::Été (1995)::Comedy|Drama\n122::Boomerang (1992)::(no genres listed)\n", encoding="utf-8"
    )
    frames = reader("10m", sha256=None).read(tmp_path)
    assert frames.interactions.rows() == [(1, 122, 4.5, 838985046), (2, 1, 0.5, 838983525)]
    assert frames.items.select("title", "category").rows() == [
        ("Été (1995)", "Comedy"),
        ("Boomerang (1992)", None),
    ]


@pytest.mark.data
@pytest.mark.parametrize(
    ("variant", "num_ratings", "top", "users", "items"),
    [("100k", 100_000, "ml-100k", 943, 1682), ("1m", 1_000_209, "ml-1m", 6040, 3706)],
)
def test_official_counts(variant, num_ratings, top, users, items):
    if not (REAL / top).exists():
        pytest.skip(f"no {top} in {REAL}; set TWOTOWER_DATA_DIR")
    frames = reader(variant, num_ratings=num_ratings).read(REAL)
    assert frames.interactions["user"].n_unique() == users
    assert frames.interactions["item"].n_unique() == items
    assert frames.interactions.null_count().sum_horizontal().item() == 0
    # every rated film has a row; at least one in a thousand has no year in its title
    rated = frames.items.filter(
        pl.col("item").is_in(frames.interactions["item"].unique().implode())
    )
    assert len(rated) == items and rated["category"].null_count() == 0
