"""One export for all tests."""

import pytest

from tests.conftest import make_data
from twotower.data.splits import Temporal


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    from tests.helpers.exporting import (
        export_model,
    )  # where the packages of the extra are installed

    folder = tmp_path_factory.mktemp("export")
    data = make_data(
        folder, split=Temporal(0.05, 0.2, 0)
    )  # 27 of 60 users and 19 of 40 items are known to training
    data.setup()
    model, record = export_model("dat", data, folder / "export", user_vectors=True)
    return folder / "export", data, model, record
