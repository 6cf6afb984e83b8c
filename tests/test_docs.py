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


def test_the_ways_that_the_architecture_tells_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    ways = text[text.index("## From the command line") : text.index("## Modules by")]
    found = re.findall(r"`([\w/]+\.py):(\w+)`((?:, `\w+`)*)", ways)
    assert len(found) > 20
    for path, first, others in found:
        source = (ROOT / "src" / "twotower" / path).read_text()
        for name in [first, *re.findall(r"\w+", others)]:
            assert re.search(rf"def {name}\(", source), f"{path} has no {name}"
