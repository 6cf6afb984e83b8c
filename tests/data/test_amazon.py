"""Amazon's three releases: hand-made files in the official formats, and a real one if present."""

import gzip
import json
import os
from pathlib import Path

import pytest

from tests.conftest import make_data
from twotower.data.readers.amazon import GENERATIONS, Amazon
from twotower.errors import UserError

REAL = Path(os.environ.get("TWOTOWER_DATA_DIR", "data"))
CATEGORY = "Musical_Instruments"
FILES = {
    2014: (
        "amazon-2014/reviews_Musical_Instruments_5.json.gz",
        "amazon-2014/meta_Musical_Instruments.json.gz",
    ),
    2018: (
        "amazon-2018/Musical_Instruments_5.json.gz",
        "amazon-2018/meta_Musical_Instruments.json.gz",
    ),
    2023: (
        "amazon-2023/Musical_Instruments.jsonl.gz",
        "amazon-2023/meta_Musical_Instruments.jsonl.gz",
    ),
}


def old(user, item, time, rating=5.0):
    return json.dumps(
        {
            "reviewerID": user,
            "asin": item,
            "helpful": [0, 1],
            "reviewText": "a\nb",
            "overall": rating,
        }
    )[:-1] + (f', "unixReviewTime": {time}}}')


def new(user, item, time, rating=5.0):
    review = {
        "rating": rating,
        "text": "fine",
        "images": [{"a": 1}],
        "asin": "variant",
        "parent_asin": item,
        "user_id": user,
    }
    return json.dumps({**review, "timestamp": time, "verified_purchase": True})


META_2014 = [
    "{'asin': '0001', 'title': \"Drum &amp; it's stick\", 'price': 12.5, 'brand': 'Acme', "
    "'categories': [['Musical Instruments', 'Drums &amp; Percussion', 'Sticks'], "
    "['Toys', 'Drums &amp; Percussion']]}",
    '{"asin": "0002", "categories": [["Musical Instruments"]], "brand": ""}',  # JSON is tried first
    "{'asin': '0009', 'title': 'nobody reviewed it': broken}",
    "{'asin': '0003', 'related': {'also_bought': ['0001']}, 'description': None, 'imUrl': 'http://x'}",
]
META_2018 = [
    '{"category": ["Musical Instruments", "Guitars", "Parts"], "brand": "Fend", "title": "T", '
    '"asin": "0001", "price": "$1,012.99"}',
    '{"category": ["Musical Instruments", "Other"], "brand": "Fend", "title": "T", '
    '"asin": "0001", "price": "$3.00"}',
    '{"category": [], "asin": "0002", "price": ".a-box-inner{background-color:#fff}"}',
    '{"category": [], "asin": "0002", "price": ""}',
    json.dumps(
        {
            "category": ["Musical Instruments", "x" * 101, "Keys"],
            "asin": "0003",
            "price": "$5.50 - $7.00",
        }
    ),
]
META_2023 = [
    '{"main_category": "Musical Instruments", "title": "T", "price": "from 5", "store": "Shop", '
    '"categories": ["Musical Instruments", "Guitars"], "parent_asin": "0001", '
    '"details": {"Brand": "x", "asin": "0002"}}',
    '{"main_category": null, "title": "", "price": null, "store": null, "categories": [], '
    '"parent_asin": "0002"}',
    '{"main_category": "Arts", "price": "—", "categories": [], "parent_asin": "0003"}',
]
REVIEWS = [
    ("A1", "0001", 5),
    ("A1", "0002", 5),
    ("A2", "0001", 4),
    ("A2", "0003", 6),
    ("A1", "0001", 7),
    ("A1", "0004", 9),
]
META = {2014: META_2014, 2018: META_2018, 2023: META_2023}


def write(path: Path, lines) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return path


def make(folder: Path, generation: int, reviews=None, meta=None) -> Path:
    scale, line = (1000, new) if generation == 2023 else (1, old)
    names = FILES[generation]
    write(folder / names[1], META[generation] if meta is None else meta)
    rows = [
        line(user, item, (1_400_000_000 + time) * scale, float(time))
        for user, item, time in REVIEWS
    ]
    return write(folder / names[0], rows if reviews is None else reviews)


def reader(generation=2014, category=CATEGORY, category_level=2, max_labels=12):
    return Amazon(category, generation, category_level, max_labels)


@pytest.mark.parametrize(
    ("generation", "unit", "scale"), [(2014, "s", 1), (2018, "s", 1), (2023, "ms", 1000)]
)
def test_reviews_of_each_release(tmp_path, generation, unit, scale):
    make(tmp_path, generation)
    frames = reader(generation).read(tmp_path)
    assert frames.time_unit == unit
    assert frames.interactions.columns == ["user", "item", "value", "time"]
    # in the order of the file, repeated pairs and leading zeros kept
    assert frames.interactions.rows() == [
        (user, item, float(time), (1_400_000_000 + time) * scale) for user, item, time in REVIEWS
    ]
    assert frames.note == ""


def test_items_of_2014(tmp_path):
    make(tmp_path, 2014)
    frames = reader().read(tmp_path)
    labels = ["Musical Instruments", "Drums & Percussion", "Sticks", "Toys"]
    assert frames.items.rows() == [
        ("0001", "Drums & Percussion", "Drum & it's stick", labels, "Acme", 12.5),
        (
            "0002",
            "Musical Instruments",
            None,
            ["Musical Instruments"],
            None,
            None,
        ),  # no second level
        ("0003", None, None, [], None, None),
    ]
    assert frames.item_features == {"labels": "multi", "brand": "categorical", "price": "numeric"}
    assert frames.remarks == (
        "amazon_2014_Musical_Instruments: 1 of 4 reviewed items are not in "
        "meta_Musical_Instruments.json.gz: no category, no features",
    )


def test_items_of_2018_the_first_of_repeated_ones_counts(tmp_path):
    make(tmp_path, 2018)
    frames = reader(2018).read(tmp_path)
    assert frames.items.rows() == [
        ("0001", "Guitars", "T", ["Musical Instruments", "Guitars", "Parts"], "Fend", 1012.99),
        ("0002", None, None, [], None, None),
        (
            "0003",
            "Keys",
            None,
            ["Musical Instruments", "Keys"],
            None,
            5.5,
        ),  # a stray text is no label
    ]
    repeated = "2 lines of meta_Musical_Instruments.json.gz repeat an item, 1 with other content"
    assert f"{repeated}: the first counts" in frames.remarks[1]


def test_items_of_2023_join_on_the_parent(tmp_path):
    make(tmp_path, 2023)
    frames = reader(2023).read(tmp_path)
    assert frames.items.rows() == [
        ("0001", "Guitars", "T", ["Musical Instruments", "Guitars"], "Shop", 5.0),
        ("0002", None, None, [], None, None),
        ("0003", "Arts", None, ["Arts"], None, None),
    ]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (1, "Musical Instruments"),
        (2, "Drums & Percussion"),
        (3, "Sticks"),
        (9, "Sticks"),
        (-1, "Sticks"),
    ],
)
def test_the_level_of_the_primary_category(tmp_path, level, expected):
    make(tmp_path, 2014)
    assert reader(category_level=level).read(tmp_path).items["category"][0] == expected


def test_labels_are_capped(tmp_path):
    make(tmp_path, 2014)
    assert reader(max_labels=2).read(tmp_path).items["labels"][0].to_list() == [
        "Musical Instruments",
        "Drums & Percussion",
    ]


def test_without_metadata_a_remark_and_a_note(tmp_path, monkeypatch):
    rows = [("A1", item, time) for time, item in enumerate(["0001", "0002", "0003"])]
    make(tmp_path, 2014, [old(user, item, 1_400_000_000 + time) for user, item, time in rows])
    (tmp_path / FILES[2014][1]).unlink()
    offline = reader()
    offline.metadata = offline.metadata._replace(url="http://127.0.0.1:9/meta.json.gz")
    data = make_data(tmp_path, offline, data_dir=str(tmp_path))
    data.setup()  # fetches first: what cannot be downloaded is done without
    assert data.schema.num_categories == 0 and (data.tables["category"] == -1).all()
    assert data.note == "no metadata: every category is missing"
    frames = offline.read(tmp_path)
    assert (
        len(frames.remarks) == 1
        and "meta_Musical_Instruments.json.gz is missing" in frames.remarks[0]
    )


def test_without_reviews_the_address_is_named(tmp_path):
    offline = reader()
    offline.reviews = offline.reviews._replace(url="http://127.0.0.1:9/reviews_5.json.gz")
    with pytest.raises(
        UserError,
        match=r"cannot download .*reviews_5.json.gz.*by hand"
        r".*reviews_Musical_Instruments_5.json.gz",
    ):
        offline.fetch(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 2 is not a JSON object: 'not json'"),
        ('["a"]', "line 2 is not a JSON object"),
        ('{"reviewerID": "A1", "asin": "0001", "overall": 5.0', "line 2 is not a JSON object"),
        (
            '{"reviewerID": "A1", "overall": 5.0, "unixReviewTime": 1}',
            "line 2 has null for asin, expected String",
        ),
        (
            '{"reviewerID": "A1", "asin": "1", "overall": 5.0, "unixReviewTime": "1"}',
            'line 2 has "1" for unixReviewTime, expected Int64',
        ),
        (
            '{"reviewerID": "A1", "asin": "1", "overall": null, "unixReviewTime": 1}',
            "line 2 has null for overall, expected Float32",
        ),
        (
            '{"reviewerID": 7, "asin": "1", "overall": 1.0, "unixReviewTime": "1"}',
            "line 2 has 7 for reviewerID, expected String",
        ),
    ],
)
def test_a_bad_review_is_named(tmp_path, line, message):
    make(tmp_path, 2014, [old("A1", "0001", 1), line, old("A2", "0001", 2)])
    with pytest.raises(UserError, match=rf"reviews_Musical_Instruments_5.json.gz {message}"):
        reader().read(tmp_path)


def test_blank_lines_are_harmless(tmp_path):
    make(tmp_path, 2014, [old("A1", "0001", 1), "", old("A2", "0001", 2), ""], ["", *META_2014])
    frames = reader().read(tmp_path)
    assert len(frames.interactions) == 2 and len(frames.items) == 1


@pytest.mark.parametrize(
    "line", ["{'asin': '0001', 'price': open('x')}", "{'asin': '0001', 'title':", "'asin': '0001'"]
)
def test_bad_metadata_are_named_and_never_run(tmp_path, line):
    make(tmp_path, 2014, meta=[META_2014[1], line])
    with pytest.raises(
        UserError, match=r"meta_Musical_Instruments.json.gz line 2 is not a JSON object"
    ):
        reader().read(tmp_path)


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_and_empty_files_are_named(tmp_path, which):
    make(tmp_path, 2014, [old(f"A{row}", "0001", row) for row in range(3000)], META_2014 * 3000)
    path = tmp_path / FILES[2014][which]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=rf"{path.name} is damaged or cut short \(.*\): fetch it again"
    ):
        reader().read(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=rf"{path.name} is empty"):
        reader().read(tmp_path)


def test_no_reviews_at_all_is_named(tmp_path):
    make(tmp_path, 2014, [""])
    with pytest.raises(UserError, match=r"reviews_Musical_Instruments_5.json.gz holds no rows"):
        reader().read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"category": "Beauty", "generation": 2018},
            r"Beauty is none of 2018 \(did you mean All_Beauty or Luxury_Beauty\?\); "
            r".*AMAZON_FASHION",
        ),
        (
            {"category": "Beauty", "generation": 2023},
            r"did you mean All_Beauty or Beauty_and_Personal_Care\?",
        ),
        ({"category": "Musical_instrument"}, r"did you mean Musical_Instruments\?"),
        (
            {"category": None},
            r"data.reader.category is not set; the categories of 2014 are Amazon_Instant_Video, "
            r".*Video_Games",
        ),
        (
            {"generation": 2016},
            r"data.reader.generation must be one of 2014, 2018, 2023, got '2016'",
        ),
        ({"category_level": 0}, r"data.reader.category_level=0 is not a level"),
        ({"max_labels": 0}, r"data.reader.max_labels must be"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        reader(**settings)


def test_as_many_categories_as_each_release_has():
    assert [len(set(generation.categories)) for generation in GENERATIONS.values()] == [24, 29, 34]


@pytest.mark.data
def test_official_counts():
    if not (REAL / FILES[2014][0]).exists():
        pytest.skip(f"no {FILES[2014][0]} in {REAL}; set TWOTOWER_DATA_DIR")
    frames = reader().read(REAL)
    counts = (
        len(frames.interactions),
        frames.interactions["user"].n_unique(),
        frames.interactions["item"].n_unique(),
    )
    assert counts == (10_261, 1_429, 900)
