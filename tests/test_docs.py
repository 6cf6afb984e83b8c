"""What the documents list, there is; an option that they do not list needs no line of them."""

import re

import pytest

from tests.conftest import ROOT

CONF = ROOT / "conf"
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("group", ["data", "model", "negatives", "optimizer", "scheduler"])
def test_the_readme_lists_options_that_there_are(group):
    (row,) = re.findall(rf"^\| `{group}=` \|(.*)\|$", README, re.M)
    listed = re.findall(r"(?<!\S)`(\w+)`", row)
    assert listed, group
    for name in listed:
        assert (CONF / group / f"{name}.yaml").exists(), f"README lists {group}={name}"


def test_the_data_sets_of_the_readme_are_described():
    (row,) = re.findall(r"^\| `data=` \|(.*)\|$", README, re.M)
    for name in re.findall(r"`(\w+)`", row):
        assert f"`{name}`" in (ROOT / "docs" / "data.md").read_text(), f"docs/data.md lacks {name}"


def test_the_ways_that_the_architecture_tells_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    ways = text[text.index("## From the command line") : text.index("## Modules by")]
    found = re.findall(r"`([\w/]+\.py):(\w+)`((?:, `\w+`)*)", ways)
    assert len(found) > 20
    for path, first, others in found:
        source = (ROOT / "src" / "twotower" / path).read_text()
        for name in [first, *re.findall(r"\w+", others)]:
            assert re.search(rf"def {name}\(", source), f"{path} has no {name}"
