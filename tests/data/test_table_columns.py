"""Columns of the user's own tables that are found by their values, and those that are missing."""

from datetime import datetime, timedelta, timezone

import pytest

from tests.helpers.table import read, reader
from twotower.errors import UserError

START = datetime(2024, 5, 31, 12, tzinfo=timezone.utc)
NUM = 60


def table(header, *columns):
    """CSV of columns, each a function of the row's number."""
    lines = [",".join(str(column(row)) for column in columns) for row in range(NUM)]
    return "\n".join([header, *lines, ""])


def user(row):
    return f"u{row % 6}"


def item(row):
    return f"i{row % 20}"


def newest_first(row):
    """A time."""
    return START - timedelta(hours=row)


def clicks(time, *more, header="user,item,seen_on"):
    return table(header, user, item, time, *more)


WRITTEN = {
    "iso": lambda time: time.isoformat(),
    "date": lambda time: f"{time:%Y-%m-%d}",
    "slashes": lambda time: f"{time:%Y/%m/%d %H:%M}",
    "seconds": lambda time: int(time.timestamp()),
    "fractions": lambda time: f"{time.timestamp()}25",
    "milliseconds": lambda time: int(time.timestamp()) * 10**3,
    "microseconds": lambda time: int(time.timestamp()) * 10**6,
    "day as a number": lambda time: f"{time:%Y%m%d}",
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_the_only_column_of_times_is_the_time_whatever_its_name(tmp_path, written):
    frames = read(tmp_path, clicks(lambda row: written(newest_first(row))))
    times = frames.interactions["time"].to_list()
    assert times[0] > times[-1] and times == sorted(times, reverse=True)
    assert "seen_on" in frames.remarks[0] and " time, " in frames.remarks[0]


@pytest.mark.parametrize(
    "form",
    [
        "%d.%m.%Y %H:%M",
        "%m/%d/%Y %H:%M:%S",
        "%d/%m/%y %H:%M:%S",
        "%a %b %d %H:%M:%S +0000 %Y",
        "%d %b %Y %H:%M",
    ],
)
def test_times_of_another_format_are_refused_rather_than_left_out(tmp_path, form):
    text = clicks(lambda row: newest_first(row).strftime(form))
    with pytest.raises(UserError, match=r"column seen_on: .*time_format"):
        read(tmp_path, text)
    frames = read(tmp_path, text, time_format=form)
    assert frames.interactions["time"][0] == int(START.timestamp()) * 10**6


def test_a_few_wrong_values_do_not_hide_a_column_of_times(tmp_path):
    text = clicks(lambda row: "" if row == 9 else newest_first(row).isoformat())
    with pytest.raises(UserError, match="line 11 has no time"):
        read(tmp_path, text)


def test_the_order_of_the_file_can_be_kept(tmp_path):
    text = clicks(lambda row: newest_first(row).isoformat())
    frames = read(tmp_path, text, time_unit="order")
    assert (frames.time_unit, frames.interactions["time"][-1]) == ("order", NUM - 1)


def test_a_column_with_a_common_name_goes_first(tmp_path):
    text = clicks(newest_first, lambda row: 1_600_000_000 + row, header="user,item,seen_on,ts")
    assert read(tmp_path, text).interactions["time"][0] == 1_600_000_000


def test_several_columns_of_times_are_a_question(tmp_path):
    def later(row):
        return newest_first(row) + timedelta(days=2)

    text = clicks(newest_first, later, header="user,item,ordered,delivered")
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    for part in (
        "(ordered, delivered)",
        "data.reader.columns.time=ordered",
        "data.reader.time_unit=order",
    ):
        assert part in str(caught.value)
    assert read(tmp_path, text, columns__time="delivered").time_unit == "us"


@pytest.mark.parametrize(
    "values",
    [
        lambda row: f"2020-01-{1 + row % 6:02d}",  # each user has one
        lambda row: f"2020-01-{1 + row % 20:02d}",  # each item has one
        lambda row: 1_000_000_000 + row,  # numbers of orders, as seconds in 2001
        lambda row: 4_500_000_000 + row,
        lambda row: 978_0_140_00000 + row,
        lambda row: 19.99 + row,
        lambda row: 10_000 + row,
        lambda row: f"10.0.12.{row}",
        lambda row: f"1.{row}.3",
        lambda row: f"12:{row}",
        lambda row: f"2001: part {row}",
        lambda row: newest_first(row).isoformat() if row % 3 else "",  # of some interactions only
    ],
)
def test_dates_of_users_and_items_and_other_numbers_are_no_times(tmp_path, values):
    frames = read(tmp_path, clicks(values))
    assert frames.time_unit == "order" and "not used" in frames.remarks[0]


@pytest.mark.parametrize(
    "name", ["order_no", "orderid", "OrderNo", "invoice_number", "phone", "ean"]
)
def test_a_number_that_is_named_a_code_is_no_time(tmp_path, name):
    text = clicks(lambda row: 1_600_000_000 + row, header=f"user,item,{name}")
    assert read(tmp_path, text).time_unit == "order"


SECTION = {"header": "user,item,section"}


def test_text_of_few_values_is_proposed_as_the_category(tmp_path):
    (remark,) = read(tmp_path, clicks(lambda row: f"s{row % 4}", **SECTION)).remarks[2:]
    assert "clicks.csv" in remark and "section (4 values)" in remark
    assert remark.endswith("set data.reader.columns.category=section")
    items = table("item,brand,form,year", lambda row: f"i{row}", user, item, lambda row: row % 3)
    remark = read(tmp_path, clicks(item), items).remarks[-1]
    assert "brand (6 values): set data.reader.item_columns.category=brand" in remark


@pytest.mark.parametrize(
    "values",
    [
        lambda row: f"d{row % 3 if row < 30 else 9}",  # an item has several: a device, say
        lambda row: row % 4,  # numbers
        lambda row: f"s{row % 20}",  # too many
        lambda row: "one",
    ],
)
def test_other_columns_are_not_proposed_as_the_category(tmp_path, values):
    assert "categor" not in "".join(read(tmp_path, clicks(values, **SECTION)).remarks[1:])


def test_ids_are_found_where_both_tables_have_the_same_column(tmp_path):
    text = table("shopper,wine,region", user, item, lambda row: f"r{row % 4}")
    wines = table("id,wine,region", lambda row: row, lambda row: f"i{row}", lambda row: "r")
    shoppers = table("town,shopper", lambda row: f"t{row % 3}", lambda row: f"u{row}")
    frames = read(tmp_path, text, wines, shoppers)
    assert (frames.interactions["user"][1], frames.interactions["item"][1]) == ("u1", "i1")
    assert (frames.users["user"][1], frames.items["item"][1]) == ("u1", "i1")
    stated = read(tmp_path, text, wines, columns__user="shopper", columns__item="wine")
    assert stated.items["item"][1] == "i1"


def test_a_common_name_goes_before_a_column_of_both_tables(tmp_path):
    text = table("user_id,item_id,label", user, item, item)
    items = table("id,label", lambda row: f"i{row}", lambda row: f"i{row + 20}")
    assert read(tmp_path, text, items).items["item"][0] == "i0"


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    text = table("who,what,when", user, item, newest_first)
    things = table("key,size", item, user)
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, things, columns__time="whn")
    for part in (
        "data.reader.columns.time=whn: ",
        "no such column (did you mean when?)",
        "no column that looks like the user or the item",
        "set data.reader.columns.user=… and data.reader.columns.item=…",
        "it has who, what, when; ",
        "items.csv has no column that looks like the item: set data.reader.item_columns.item=…; ",
    ):
        assert part in str(caught.value), part


def test_likely_columns_are_proposed(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path, table("Kunde,book,customer", user, item, user))
    for part in (
        "the user (did you mean customer?) or the item (did you mean book?)",
        "set data.reader.columns.user=customer and data.reader.columns.item=book",
    ):
        assert part in str(caught.value), part


def test_all_missing_files_are_named_at_once(tmp_path):
    (tmp_path / "clicks.csv").write_text("")
    table = reader(interactions=["click.csv", "b.csv"], items="i.csv", users="clicks.csv")
    with pytest.raises(UserError, match=r"=click\.csv.*mean clicks\.csv.*=b\.csv.*items=i\.csv"):
        table.fetch(tmp_path)
