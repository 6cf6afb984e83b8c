"""Downloads from a local web server that misbehaves on demand."""

import gzip
import hashlib
import http.server
import os
import shutil
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
from twotower.data.download import download, transfer
from twotower.data.download.download import Archive, SingleFile
from twotower.errors import UserError

CONTENT = bytes(range(256)) * 1000  # 256,000 bytes, so four chunks; no two places of a period look alike
HALF = 128_000


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at any address; each request takes the next of ``acts``, then all is well."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.headers = {"ETag": '"one"'}
        self.knows_ranges = True
        self.acts = []
        self.requests = []
        self.pause = 0.0  # seconds between the blocks of 1,000 bytes
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/set.bin"

    def changes(self):
        self.content, self.headers = CONTENT[::-1], {"ETag": '"two"'}

    def ranges(self):
        return [(headers.get("Range"), headers.get("If-Range")) for headers in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        self.server.requests.append(self.headers)
        act = self.server.acts.pop(0) if self.server.acts else "fine"
        if act == "hang":
            self.server.released.wait()
        elif isinstance(act, tuple):
            status, *headers = act
            self.answer(status, dict(headers), b"an error page")
        else:
            self.send_file(act)

    def send_file(self, act):
        served, content = self.server, self.server.content
        span = self.headers.get("Range") if served.knows_ranges else None
        if span and self.headers["If-Range"] in (*served.headers.values(), *(["anything"] if act == "ignores If-Range" else [])):
            pass
        elif act != "ignores If-Range":
            span = None
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span else 0
        if span and start >= len(content):
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
        headers = served.headers | ({"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if span else {})
        sent = content[start : HALF if act == "drop" else None]
        return self.answer(206 if span else 200, headers, sent, length=len(content) - start)

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
    monkeypatch.setattr(transfer, "PAUSE_S", 0.01)
    monkeypatch.setattr(transfer, "TIMEOUT_S", (1.0, 0.3))
    with Server() as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        yield service
        service.released.set()
        service.shutdown()


def checksum_of(content, kind="sha256"):
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def fetched(server, folder, checksum=None):
    SingleFile(server.url, checksum, "set/set.bin").fetch(folder)
    assert files_in(folder) == ["set.bin"]  # no partial file, no description of one
    return (folder / "set" / "set.bin").read_bytes()


def refused(server, folder, checksum=None):
    with pytest.raises(UserError) as error:
        SingleFile(server.url, checksum, "set/set.bin").fetch(folder)
    line = str(error.value)
    assert "\n" not in line and server.url in line
    assert f"fetch it by hand to {folder / 'set' / 'set.bin'}, or set paths.data_dir" in line
    assert not (folder / "set" / "set.bin").exists()
    return line


# Going on


@pytest.mark.parametrize("headers", [{"ETag": '"one"'}, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "ETag": 'W/"weak"'}])
def test_a_broken_transfer_goes_on_where_it_ended(server, tmp_path, capsys, headers):
    server.headers = headers
    server.acts = ["drop"]
    assert fetched(server, tmp_path, checksum_of(CONTENT)) == CONTENT
    start = int(server.ranges()[1][0].removeprefix("bytes=").removesuffix("-"))
    assert server.ranges() == [(None, None), (f"bytes={start}-", next(iter(headers.values())))]
    assert 64_000 <= start <= HALF  # the last chunk may be lost
    assert f"{server.url}: the connection broke; trying again in 0.0 s, from byte {start:,}" in capsys.readouterr().err


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.knows_ranges = False
    server.acts = ["drop", "drop"]
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges()[2][0] is not None  # it was asked to


def test_without_a_validator_nothing_is_continued(server, tmp_path):
    server.headers = {}
    server.acts = ["drop"]
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges() == [(None, None), (None, None)]


@pytest.mark.parametrize("act", ["fine", "ignores If-Range"])
def test_a_file_that_changes_in_between_is_not_mixed(server, tmp_path, monkeypatch, act):
    server.acts = ["drop", act]
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: (seconds and server.changes(), sleep(seconds)))
    assert fetched(server, tmp_path) == CONTENT[::-1]


def test_a_file_that_has_become_shorter(server, tmp_path, monkeypatch):
    server.acts = ["drop", "ignores If-Range"]

    def shorten(seconds):
        if seconds:
            server.content = CONTENT[:1000]

    monkeypatch.setattr(time, "sleep", shorten)
    assert fetched(server, tmp_path) == CONTENT[:1000]  # after 416
    assert len(server.requests) == 3 and server.ranges()[2][0] is None


def test_progress_makes_patience(server, tmp_path, monkeypatch):
    """Fifteen failures are fine where every fifth attempt brings something."""
    monkeypatch.setattr(transfer, "CHUNK", 1000)
    server.content = CONTENT[:4000]
    monkeypatch.setattr(Handler, "answer", short_answers(Handler.answer))
    server.acts = ["fine", *[(503,)] * 4, "fine", *[(503,)] * 4, "fine", *[(503,)] * 4]
    assert fetched(server, tmp_path) == CONTENT[:4000]
    assert len(server.requests) == 16


def short_answers(answer):
    """No answer brings more than 1,000 bytes."""
    return lambda self, status, headers, body, length=None: answer(self, status, headers, body[:1000], length or len(body))


# Trying again


def test_errors_that_pass(server, tmp_path, capsys):
    server.acts = [(503,), (500,)]
    assert fetched(server, tmp_path, checksum_of(CONTENT, "md5")) == CONTENT
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].endswith("503 Service Unavailable; trying again in 0.0 s")


def test_pauses_double_up_to_the_last_attempt(server, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(transfer, "PAUSE_S", 1.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(seconds) if seconds else None)
    server.acts = [(502,)] * 9
    assert "502 Bad Gateway" in refused(server, tmp_path)
    assert len(server.requests) == 6
    for expected, seconds in zip([1, 2, 4, 8, 16], slept, strict=True):
        assert 0.75 * expected <= seconds <= 1.25 * expected
    assert slept != [1, 2, 4, 8, 16]  # chance is in them


def test_the_server_says_when_to_come_back(server, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(seconds) if seconds else None)
    server.acts = [(429, ("Retry-After", "7")), (503, ("Retry-After", "soon"))]
    assert fetched(server, tmp_path) == CONTENT
    assert slept[0] == 7 and slept[1] < 1  # "soon" is no time: our own pause


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server, tmp_path):
    server.acts = [(429, ("Retry-After", "3600"))]
    assert "429 Too Many Requests, and it wants to be left alone for 3,600 s" in refused(server, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_errors_that_do_not_pass_are_not_retried(server, tmp_path, status):
    server.acts = [(status,)]
    assert f"({status} " in refused(server, tmp_path)
    assert len(server.requests) == 1


def test_a_stalled_server_times_out(server, tmp_path):
    server.acts = ["hang"]
    started = time.monotonic()
    assert fetched(server, tmp_path) == CONTENT
    assert len(server.requests) == 2 and time.monotonic() - started < 10  # of the 0.3 s that the fixture sets


def test_a_transfer_that_stalls_midway_goes_on(server, tmp_path, monkeypatch):
    def stall(self, status, headers, body, length=None, answer=Handler.answer):
        if len(self.server.requests) == 1:
            answer(self, status, headers, body[:HALF], length)
            self.server.released.wait()
        answer(self, status, headers, body, length)

    monkeypatch.setattr(Handler, "answer", stall)
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges()[1][0] is not None


def test_no_connection_is_said_soon(server, tmp_path):
    server.url = "http://127.0.0.1:9/set.bin"
    assert "cannot download http://127.0.0.1:9/set.bin (no connection): fetch it by hand" in refused(server, tmp_path)


def test_a_chunked_answer_without_its_end(server, tmp_path):
    server.acts = [(200, ("Transfer-Encoding", "chunked"))]  # and no chunk follows
    assert fetched(server, tmp_path) == CONTENT


# Verifying


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    assert "(its md5 checksum differs from the official one: deleted)" in refused(server, tmp_path, "md5:" + "0" * 32)
    assert not files_in(tmp_path) and len(server.requests) == 1


def test_a_damaged_partial_file_is_fetched_anew(server, tmp_path):
    """After a power failure a file can have its size, and zeros."""
    server.acts = ["drop", (404,)]
    refused(server, tmp_path)
    partial = tmp_path / "set" / ".set.bin.download"
    partial.write_bytes(bytes(partial.stat().st_size))
    assert fetched(server, tmp_path, checksum_of(CONTENT)) == CONTENT
    assert [span is None for span, _ in server.ranges()] == [True, False, False, True]


def test_a_server_that_always_breaks_off_is_given_up(server, tmp_path):
    server.headers = {}
    server.acts = ["drop"] * 20
    assert "the connection broke" in refused(server, tmp_path)
    assert len(server.requests) == 6


def test_a_file_that_changes_again_and_again_is_given_up(server, tmp_path, monkeypatch):
    """Half a file is no progress where half a file was before."""
    server.acts = ["drop", "ignores If-Range"] * 20

    def change(seconds, sleep=time.sleep):
        if seconds:
            server.headers = {"ETag": f'"{len(server.requests)}"'}
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", change)
    assert "cannot download" in refused(server, tmp_path)
    assert len(server.requests) == 6


def test_an_empty_file_is_none(server, tmp_path):
    server.content = b""
    assert "(it is empty)" in refused(server, tmp_path)


def test_a_web_page_is_not_the_file(server, tmp_path):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    assert "a web page came instead" in refused(server, tmp_path)
    assert len(server.requests) == 1 and not files_in(tmp_path)


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: content[:50] + b"\xff" + content[51:]])
def test_a_damaged_gzip_file_is_seen_without_a_checksum(server, tmp_path, damage):
    server.content = damage(gzip.compress(os.urandom(5000)))
    with pytest.raises(UserError, match=r"set.bin is damaged \(.*\); deleted: fetch it by hand to .*set.gz"):
        SingleFile(server.url, None, "set.gz").fetch(tmp_path)
    assert not files_in(tmp_path)


def test_compressed_files_come_as_they_lie(server, tmp_path):
    """Some servers call a .gz a text with Content-Encoding gzip: it must stay a .gz."""
    server.url += ".gz"
    server.content = gzip.compress(CONTENT)
    server.headers |= {"Content-Encoding": "gzip"}
    SingleFile(server.url, None, "set.gz").fetch(tmp_path)
    assert gzip.decompress((tmp_path / "set.gz").read_bytes()) == CONTENT
    server.url = server.url.removesuffix(".gz")
    assert "Content-Encoding gzip, which was not asked for" in refused(server, tmp_path / "other")


# The disk


def test_too_little_room_is_seen_in_advance(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=255_999))
    with pytest.raises(
        UserError, match=rf"{tmp_path} has no room for set.bin \(256,000 bytes to come, 255,999 free\): free space"
    ):
        SingleFile(server.url, None, "set.bin").fetch(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir() if path.suffix != ".json") == 0


def test_a_disk_that_fills_up(server, tmp_path):
    (tmp_path / ".set.bin.download").symlink_to("/dev/full")  # a device that is always full
    with pytest.raises(UserError, match=r"has no room for set.bin \(No space left on device\).*goes on where this ended"):
        SingleFile(server.url, None, "set.bin").fetch(tmp_path)
    assert not (tmp_path / "set.bin").exists()


def test_a_read_only_folder_with_the_files_needs_no_lock(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one.dat").write_text("1")
    Archive("http://127.0.0.1:9/set.zip", None, "set", ["one.dat"]).fetch(tmp_path)
    SingleFile("http://127.0.0.1:9/set.zip", None, "set/one.dat").fetch(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "one.dat"]


@pytest.mark.parametrize("source", [Archive("http://x/a.zip", None, "a", ["b"]), SingleFile("http://x/a.zip", None, "a.zip")])
def test_a_folder_that_cannot_be_written(source):
    line = (
        r"a.zip is missing and /proc/data cannot be written \(.*\): fetch it by hand to /proc/data/a.zip,.* or set paths.data_dir"
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


def test_a_download_lives_until_its_files_are_there(server, tmp_path, monkeypatch):
    server.content = make_zip(tmp_path / "official", {"a/one.dat": "1"})
    archive = Archive(server.url, checksum_of(server.content), "a", ["one.dat"])
    data_dir = tmp_path / "data"
    real = download.merge

    def killed(when):
        def merge(*paths):
            if when == "after":
                real(*paths)
            raise KeyboardInterrupt

        return merge

    for when in ("before", "after"):
        monkeypatch.setattr(download, "merge", killed(when))
        with pytest.raises(KeyboardInterrupt):
            archive.fetch(data_dir)
        assert (data_dir / ".a.download").read_bytes() == server.content
        assert (data_dir / "a").exists() == (when == "after")
    monkeypatch.setattr(download, "merge", real)
    archive.fetch(data_dir)
    assert files_in(data_dir) == ["one.dat"]
    assert [path.name for path in data_dir.iterdir() if path.is_dir()] == ["a"]


def test_an_archive_brought_by_hand_is_used(tmp_path):
    content = make_zip(tmp_path / "a.zip", {"a/one.dat": "1"})
    Archive("http://127.0.0.1:9/sets/a.zip?raw=1", checksum_of(content), "a", ["one.dat"]).fetch(tmp_path)
    assert (tmp_path / "a" / "one.dat").read_text() == "1" and (tmp_path / "a.zip").exists()
    with pytest.raises(UserError, match=r"a.zip is not the official file \(its checksum differs\): delete it"):
        Archive("http://127.0.0.1:9/a.zip", checksum_of(b""), "b", ["one.dat"]).fetch(tmp_path)
    assert (tmp_path / "a.zip").exists()  # it is the user's


@pytest.mark.parametrize(
    ("members", "message"),
    [({"b/one.dat": "1"}, r"holds no a/one.dat; deleted"), ({"../one.dat": "1"}, r"holds '../one.dat', outside its folder")],
)
def test_a_bad_archive_leaves_nothing(server, tmp_path, members, message):
    server.content = make_zip(tmp_path / "official", members)
    data_dir = tmp_path / "data"
    with pytest.raises(UserError, match=rf"set.bin {message}.*fetch it by hand to .*set.bin, or unpack it so that .*a/one.dat"):
        Archive(server.url, None, "a", ["one.dat"]).fetch(data_dir)
    assert {path.name for path in data_dir.iterdir()} == {".a.lock"}


# Real processes


def start(server, data_dir):
    code = (
        "import sys, types; sys.modules['torch'] = types.SimpleNamespace(Tensor=object); "  # seconds, and of no use here
        "from pathlib import Path; from twotower.data.download.download import SingleFile; "
        f"SingleFile({server.url!r}, {checksum_of(CONTENT)!r}, 'set.bin').fetch(Path({str(data_dir)!r}))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)


def test_killed_then_continued_by_one_of_two(server, tmp_path):
    """SIGKILL amid the transfer; then two processes start: one goes on, the other waits and uses the result."""
    server.pause = 0.01  # 2.6 s for all
    partial = tmp_path / ".set.bin.download"
    process = start(server, tmp_path)
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    size = partial.stat().st_size
    assert not (tmp_path / "set.bin").exists() and 0 < size < len(CONTENT)

    both = [start(server, tmp_path) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    first, waited = sorted(errors)
    assert first == "" and waited.startswith("another process is downloading set.bin: waiting for it; process ")
    assert server.ranges() == [(None, None), (f"bytes={size}-", '"one"')]
    assert (tmp_path / "set.bin").read_bytes() == CONTENT and files_in(tmp_path) == ["set.bin"]
