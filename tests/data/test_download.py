"""Downloads against a local web server that misbehaves."""

import hashlib
import http.server
import threading
import zipfile
from pathlib import Path

import pytest

from twotower.data.download import Archive, unpack
from twotower.types import UserError


@pytest.fixture
def server(tmp_path):
    """A local web server of ``tmp_path/www``."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{service.server_port}"
        service.shutdown()


def make_zip(path: Path, members: dict[str, str]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_download_verifies_unpacks_and_cleans_up(tmp_path, server):
    folder, url = server
    sha256 = make_zip(folder / "a.zip", {"a/one.dat": "1", "a/two.dat": "2"})
    data_dir = tmp_path / "data"
    (data_dir / "a").mkdir(parents=True)
    (data_dir / "a" / "one.dat").write_text("mine")
    Archive(f"{url}/a.zip", f"sha256:{sha256}", "a", ["one.dat", "two.dat"]).fetch(data_dir)
    assert (data_dir / "a" / "one.dat").read_text() == "mine"  # what the user put there stays
    assert (data_dir / "a" / "two.dat").read_text() == "2"
    assert {path.name for path in data_dir.iterdir()} <= {"a", ".a.lock"}


def test_a_wrong_checksum_leaves_nothing(tmp_path, server):
    folder, url = server
    make_zip(folder / "a.zip", {"a/one.dat": "1"})
    with pytest.raises(UserError, match="checksum differs"):
        Archive(f"{url}/a.zip", "sha256:" + "0" * 64, "a", ["one.dat"]).fetch(tmp_path / "data")
    assert not (tmp_path / "data" / "a").exists() and not list((tmp_path / "data").glob("*.zip"))


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "b/other"])
def test_archives_stay_in_their_folder(tmp_path, name):
    make_zip(tmp_path / "a.zip", {name: "x"})
    with pytest.raises(UserError, match="outside its folder"):
        unpack(tmp_path / "a.zip", tmp_path / "data", "a")
    assert not (tmp_path / "evil").exists()


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("twotower.data.download.MAX_UNPACKED_BYTES", 3)
    make_zip(tmp_path / "a.zip", {"a/one.dat": "1234"})
    with pytest.raises(UserError, match="refused"):
        unpack(tmp_path / "a.zip", tmp_path / "data", "a")
