"""What the documents promise to list, they list."""

import re

import pytest

from tests.conftest import ROOT

DATA = sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml") if not path.stem.startswith("base"))


@pytest.mark.parametrize("name", DATA)
def test_each_data_set_is_described(name):
    assert f"`{name}`" in (ROOT / "docs" / "data.md").read_text(), f"docs/data.md does not name `{name}`"


def test_the_readme_lists_the_data_sets_that_there_are():
    (row,) = re.findall(r"^\| `data=` \|(.*)\|$", (ROOT / "README.md").read_text(), re.M)
    listed = re.findall(r"`([\w=]+)`", row)
    assert sorted(listed) == DATA
