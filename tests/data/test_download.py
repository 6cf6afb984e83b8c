"""Downloads from a local web server that misbehaves on demand."""

import gzip
import hashlib
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.waiting import wait_until
from twotower.data.download import download
from twotower.data.download.download import Archive, SingleFile
from twotower.errors import UserError

CONTENT = bytes(range(256)) * 1000
HALF = 128_000


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at any address; each request uses one of ``acts``, then all succeed."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.headers = {}
        self.acts = []
        self.requests = 0
        self.pause = 0.0  # seconds between the blocks of 1,000 bytes
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/set.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        self.server.requests += 1
        act = self.server.acts.pop(0) if self.server.acts else "fine"
        if act == "hang":
            self.server.released.wait()
        elif isinstance(act, tuple):
            status, *headers = act
            self.answer(status, dict(headers), b"an error page")
        else:
            if act == "hold":
                self.server.released.wait()
            content = self.server.content
            sent = content[: HALF if act == "drop" else None]
            self.answer(200, self.server.headers, sent, length=len(content))

    def answer(self, status, headers, body, length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in headers:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        for start in range(0, len(body), 1000):
            self.wfile.write(body[start : start + 1000])
            time.sleep(self.server.pause)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 2)
    monkeypatch.setattr(download, "TIMEOUT_S", (1.0, 0.3))
    sleep = time.sleep  # pooch waits a second, then two
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    with Server() as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        yield service
        service.released.set()
        service.shutdown()


def checksum_of(content, kind="sha256"):
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


def files_in(folder):
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def fetched(server, folder, checksum=None):
    SingleFile(server.url, checksum, "set/set.bin").fetch(folder)
    assert {path.name for path in (folder / "set").iterdir()} == {"set.bin", ".set.bin.lock"}
    return (folder / "set" / "set.bin").read_bytes()


def refused(server, folder, checksum=None):
    with pytest.raises(UserError) as error:
        SingleFile(server.url, checksum, "set/set.bin").fetch(folder)
    line = str(error.value)
    assert "\n" not in line and server.url in line
    assert f"fetch it by hand to {folder / 'set' / 'set.bin'}, or set paths.data_dir" in line
    assert not files_in(folder)
    return line


# Trying again


@pytest.mark.parametrize(
    "act", ["drop", "hang", (503,), (429,), (200, ("Transfer-Encoding", "chunked"))], ids=str
)
def test_errors_that_pass(server, tmp_path, act):
    server.acts = [act, act]
    assert fetched(server, tmp_path) == CONTENT
    assert server.requests == 3


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("drop", "ConnectionError|ChunkedEncodingError"),
        ("hang", "ReadTimeout|ConnectionError"),
        ((502,), "502 Bad Gateway"),
    ],
    ids=str,
)
def test_errors_that_do_not_pass(server, tmp_path, act, reason):
    server.acts = [act] * 9
    assert re.search(reason, refused(server, tmp_path))
    assert server.requests == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_final_answers_are_not_retried(server, tmp_path, status):
    server.acts = [(status,)]
    assert f"({status} " in refused(server, tmp_path)
    assert server.requests == 1


def test_no_connection(server, tmp_path):
    server.url = "http://127.0.0.1:9/set.bin"
    assert "cannot download http://127.0.0.1:9/set.bin (ConnectionError)" in refused(
        server, tmp_path
    )


def test_an_address_that_is_none(server, tmp_path):
    server.url = "nowhere://set.bin"
    assert "(InvalidSchema)" in refused(server, tmp_path)


@pytest.mark.parametrize("act", [(404,), (503,), "drop", "fine"], ids=str)
def test_secrets_of_an_address_are_not_printed(server, tmp_path, act, capfd):
    server.acts = [act] * 9
    host = server.url.removeprefix("http://")
    url = f"http://me:hush@{host}?token=hush#hush"
    with pytest.raises(UserError, match=f"http://{host}") as error:
        SingleFile(url, "md5:0", "set.bin").fetch(tmp_path)
    assert "hush" not in str(error.value) + "".join(capfd.readouterr())


# Verifying


def test_a_right_checksum(server, tmp_path):
    assert fetched(server, tmp_path, checksum_of(CONTENT, "md5")) == CONTENT
    assert (
        fetched(server, tmp_path / "other", checksum_of(CONTENT).upper().replace("SHA", "sha"))
        == CONTENT
    )


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    assert "(its checksum differs from the official one)" in refused(
        server, tmp_path, "md5:" + "0" * 32
    )


def test_an_empty_file_is_none(server, tmp_path):
    server.content = b""
    assert "(it is empty)" in refused(server, tmp_path)


def test_a_web_page_is_not_the_file(server, tmp_path):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    assert "a web page came instead" in refused(server, tmp_path)
    assert server.requests == 1


def test_compressed_files_come_as_they_lie(server, tmp_path):
    """Some servers call a .gz a text with Content-Encoding gzip: it must stay a .gz."""
    server.url += ".gz"
    server.content = gzip.compress(CONTENT)
    server.headers = {"Content-Encoding": "gzip"}
    SingleFile(server.url, None, "set.gz").fetch(tmp_path)
    assert gzip.decompress((tmp_path / "set.gz").read_bytes()) == CONTENT


# The disk


def test_a_disk_that_fills_up(server, tmp_path, monkeypatch):
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr("pooch.downloaders.open", lambda path, mode: full, raising=False)
    with pytest.raises(
        UserError, match=r"has no room for set.bin \(No space left on device\): free space"
    ):
        SingleFile(server.url, None, "set.bin").fetch(tmp_path)
    assert not files_in(tmp_path) and server.requests == 1


def test_downloaded_files_have_plain_permissions(server, tmp_path):
    fetched(server, tmp_path)
    assert (tmp_path / "set" / "set.bin").stat().st_mode & 0o777 == 0o644


def test_a_read_only_folder_with_the_files_needs_no_lock(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one.dat").write_text("1")
    Archive("http://127.0.0.1:9/set.zip", None, "set", ["one.dat"]).fetch(tmp_path)
    SingleFile("http://127.0.0.1:9/set.zip", None, "set/one.dat").fetch(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "one.dat"]


@pytest.mark.parametrize(
    "source",
    [Archive("http://x/a.zip", None, "a", ["b"]), SingleFile("http://x/a.zip", None, "a.zip")],
)
def test_a_folder_that_cannot_be_written(source):
    line = (
        r"a.zip is missing and /proc/data cannot be written \(.*\): "
        r"fetch it by hand to /proc/data/a.zip,.* or set paths.data_dir"
    )
    with pytest.raises(UserError, match=line):
        source.fetch(Path("/proc/data"))


# Archives


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def test_an_archive_is_unpacked_beside_what_is_there(server, tmp_path):
    server.content = make_zip(tmp_path / "official", {"a/one.dat": "1", "a/b/two.dat": "2"})
    data_dir = tmp_path / "data"
    (data_dir / "a").mkdir(parents=True)
    (data_dir / "a" / "one.dat").write_text("mine")
    Archive(server.url, checksum_of(server.content), "a", ["one.dat", "b/two.dat"]).fetch(data_dir)
    assert (data_dir / "a" / "one.dat").read_text() == "mine"  # what the user put there stays
    assert (data_dir / "a" / "b" / "two.dat").read_text() == "2"
    assert {path.name for path in data_dir.iterdir()} == {"a", ".a.lock"}


def test_an_interrupted_unpacking_starts_again(server, tmp_path, monkeypatch):
    server.content = make_zip(tmp_path / "official", {"a/one.dat": "1", "a/two.dat": "2"})
    archive = Archive(server.url, checksum_of(server.content), "a", ["one.dat", "two.dat"])
    data_dir = tmp_path / "data"
    real = download._install

    def interrupted(file, target):
        real(file, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        archive.fetch(data_dir)
    assert files_in(data_dir) == ["one.dat"]
    monkeypatch.setattr(download, "_install", real)
    archive.fetch(data_dir)
    assert files_in(data_dir) == ["one.dat", "two.dat"]
    assert {path.name for path in data_dir.iterdir()} == {"a", ".a.lock"}


def test_an_archive_brought_by_hand_is_used(tmp_path):
    content = make_zip(tmp_path / "a.zip", {"a/one.dat": "1"})
    Archive("http://127.0.0.1:9/sets/a.zip?raw=1", checksum_of(content), "a", ["one.dat"]).fetch(
        tmp_path
    )
    assert (tmp_path / "a" / "one.dat").read_text() == "1" and (tmp_path / "a.zip").exists()
    with pytest.raises(
        UserError, match=r"a.zip is not the official file \(its checksum differs\): delete it"
    ):
        Archive("http://127.0.0.1:9/a.zip", checksum_of(b""), "b", ["one.dat"]).fetch(tmp_path)
    with pytest.raises(UserError, match=r"a.zip holds no b/one.dat: delete it"):
        Archive("http://127.0.0.1:9/a.zip", None, "b", ["one.dat"]).fetch(tmp_path)
    assert (tmp_path / "a.zip").exists()  # it is the user's


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"b/one.dat": "1"}, r"holds no a/one.dat"),
        ({"../one.dat": "1"}, r"holds '../one.dat', outside its folder"),
    ],
)
def test_a_bad_archive_leaves_nothing(server, tmp_path, members, message):
    server.content = make_zip(tmp_path / "official", members)
    data_dir = tmp_path / "data"
    with pytest.raises(
        UserError,
        match=rf"set.bin {message}.*fetch it by hand to .*set.bin, "
        r"or unpack it so that .*a/one.dat",
    ):
        Archive(server.url, None, "a", ["one.dat"]).fetch(data_dir)
    assert {path.name for path in data_dir.iterdir()} == {".a.lock"}


# Real processes


def start(server, data_dir):
    url, checksum = server.url, checksum_of(CONTENT)
    code = (
        # importing torch takes seconds, and it is not needed here
        "import sys, types; sys.modules['torch'] = types.SimpleNamespace(Tensor=object); "
        "from pathlib import Path; from twotower.data.download.download import SingleFile; "
        f"SingleFile({url!r}, {checksum!r}, 'set.bin').fetch(Path({str(data_dir)!r}))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True
    )


def test_killed_then_downloaded_by_one_of_two(server, tmp_path):
    """SIGKILL during the transfer; then two processes start: one downloads, the other waits."""
    server.pause = 0.01  # 2.6 s for all
    process = start(server, tmp_path)
    wait_until(lambda: server.requests == 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "set.bin").exists()

    server.pause = 0.0
    server.acts = ["hold"]
    first = start(server, tmp_path)
    wait_until(lambda: server.requests == 2, first)
    second = start(server, tmp_path)
    waits = second.stderr.readline()
    assert waits.startswith("another process is downloading set.bin: waiting for it; process ")
    server.released.set()
    assert (first.communicate()[1], second.communicate()[1]) == ("", "")
    assert (first.returncode, second.returncode, server.requests) == (0, 0, 2)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert {path.name for path in tmp_path.iterdir()} == {"set.bin", ".set.bin.lock"}
