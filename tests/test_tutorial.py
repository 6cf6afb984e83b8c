"""Runs all cells of the tutorial notebook."""

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOTOWER_OUTPUT_DIR", str(tmp_path / "outputs"))
    monkeypatch.setenv("TWOTOWER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    )
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": ROOT / "docs"}}
    ).execute()
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = ["".join(output.get("text", "") for output in cell.outputs) for cell in codes]
    assert "popularity" in shown[1] and "dat λ3=0" in shown[3] and "as exported" in shown[6], shown
    table = codes[4].outputs[-1]["data"]["text/plain"]
    items = re.findall(r"│ \d+ +┆ (\d+)", table)  # rank, item
    served = codes[-1].outputs[-1]["data"]["text/plain"]
    assert f"[{', '.join(items)}]" == served  # the exported files recommend what the model does
