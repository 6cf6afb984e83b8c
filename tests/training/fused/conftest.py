"""Data of all tests of fused runs."""

import pytest

from tests.helpers.fused import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("fused"))
