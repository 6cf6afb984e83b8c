"""The versions that a record names, and the table of a record."""

import subprocess
from pathlib import Path

from twotower.run import results


def test_the_commit_is_named_of_a_repository_and_not_of_a_folder_inside_another(
    tmp_path, monkeypatch
):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    (tmp_path / "file").write_text("one")
    git("init", "-q")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    git("tag", "-m", "x", "v1")
    commit = git("rev-parse", "HEAD").stdout.strip()
    monkeypatch.setattr(results, "ROOT", tmp_path)
    assert results.versions()["commit"] == commit
    (tmp_path / "file").write_text("two")
    assert results.versions()["commit"] == f"{commit}-dirty"
    (tmp_path / "inner").mkdir()
    monkeypatch.setattr(results, "ROOT", tmp_path / "inner")
    assert "commit" not in results.versions()


def test_a_run_that_measured_nothing_has_no_table(capsys):
    record = {"model": "dat", "data": "synthetic", "seed": 0, "val": {}, "test": {}}
    results.print_table({**record, "popularity": None, "oracle": None}, Path("run"))
    assert capsys.readouterr().out.strip() == "run"
