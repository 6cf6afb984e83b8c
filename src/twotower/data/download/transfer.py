"""One file over HTTP: continued where it broke off, retried with growing pauses."""

import errno
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from twotower.data.download.partial import Known, Partial, has_checksum
from twotower.data.progress import ByteBar, byte_bar
from twotower.wording import PlainConsole

CHUNK = 1 << 16
TIMEOUT_S = (10.0, 30.0)  # to connect, and without a byte after that
PAUSE_S = 1.0  # after the first failure; doubles with each one in a row
MAX_PAUSE_S = 120.0  # a server that asks for more is not waited for
ATTEMPTS = 6  # in a row without a new byte
ATTEMPTS_TO_CONNECT = 3  # who is offline wants to know soon
BUSY = {408, 425, 429, 500, 502, 503, 504}


class TransferError(Exception):
    """An attempt that failed; the message is a short reason.

    Attributes:
        attempts: how many in a row such a failure is worth; 1 where another would fail alike.
        pause: seconds that the server asks to wait; None where it does not.
    """

    def __init__(self, reason: str, attempts: int = ATTEMPTS, pause: float | None = None) -> None:
        super().__init__(reason)
        self.attempts = attempts
        self.pause = pause


def download(url: str, checksum: str | None, partial: Partial) -> None:
    """Receive what ``partial`` lacks of the file at ``url``, and verify the whole.

    Proxies, certificates and ``.netrc`` are those of requests.

    Raises:
        TransferError: if it fails for good; what has come stays if it can be continued.
        OSError: if it cannot be written.
    """
    failures = most = 0
    with byte_bar(f"downloading {url.rpartition('/')[2]}") as bar:
        while True:
            try:
                kept = _attempt(url, partial, bar)
                _verify(checksum, partial, attempts=ATTEMPTS if kept else 1)
                return
            except TransferError as error:
                failures = 1 if partial.size > most else failures + 1  # so a server that makes us start anew again and again ends
                most = max(most, partial.size)
                pause = _pause(failures) if error.pause is None else error.pause
                if failures >= error.attempts:
                    raise
                if pause > MAX_PAUSE_S:
                    raise TransferError(f"{error}, and it wants to be left alone for {pause:,.0f} s") from error
                say = f"{url}: {error}; trying again in {pause:.1f} s" + (f", from byte {partial.size:,}" if partial.size else "")
                PlainConsole(stderr=True, soft_wrap=True).print(say)
                time.sleep(pause)


def _attempt(url: str, partial: Partial, bar: ByteBar) -> int:
    """Receive what is missing; the number of bytes that were here before and are kept."""
    known = partial.recall(url)
    start = partial.size if known else 0
    if known and 0 < start == known.total:  # killed after the last byte
        return start
    headers = {"Accept-Encoding": "identity"}  # ranges count the bytes as they lie there, and a .gz must stay one
    if known and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": known.validator}
    with _reasons(), requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        _check_status(response)
        if known and _continues(response, start, known):
            _receive(response, partial, start, known.total, bar)
            return start
        if response.status_code != 200:
            partial.discard()
            raise TransferError("the file has changed in between")
        _check_content(response)
        length = response.headers.get("Content-Length", "")
        new = Known(url, _validator(response), int(length) if length.isdecimal() else None)
        partial.begin(new)
        _receive(response, partial, 0, new.total, bar)
        return 0


def _receive(response: requests.Response, partial: Partial, start: int, total: int | None, bar: ByteBar) -> None:
    _check_room(partial, (total or start) - start)
    done = start
    with partial.path.open("ab") as file:
        bar(done, total)
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            done += len(chunk)
            bar(done, total)
        file.flush()
        os.fsync(file.fileno())  # a rename comes next: after a power failure the name must not hold less
    if done == 0:
        raise TransferError("it is empty")
    if done != (total or done):
        raise TransferError(f"it ended after {done:,} of {total:,} bytes")


def _check_room(partial: Partial, needed: int) -> None:
    free = shutil.disk_usage(partial.path.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes to come, {free:,} free")


def _check_status(response: requests.Response) -> None:
    status = f"{response.status_code} {response.reason}"
    if response.status_code in BUSY:
        raise TransferError(status, pause=urllib3.Retry().get_retry_after(response.raw))
    if response.status_code not in (200, 206, 416):  # 416: what is here is longer than the file
        raise TransferError(status, attempts=1)


def _check_content(response: requests.Response) -> None:
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise TransferError("a web page came instead of the file: a login, or a word of the proxy", attempts=1)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity" and not response.url.partition("?")[0].endswith(".gz"):
        raise TransferError(f"it came with Content-Encoding {encoding}, which was not asked for", attempts=1)


def _continues(response: requests.Response, start: int, known: Known) -> bool:
    """Are these the next bytes of the same file? Not every server that knows ranges heeds If-Range."""
    span = response.headers.get("Content-Range", "")
    same_size = known.total is None or span.endswith((f"/{known.total}", "/*"))
    return (
        response.status_code == 206
        and span.startswith(f"bytes {start}-")
        and same_size
        and _validator(response) in ("", known.validator)
    )


def _validator(response: requests.Response) -> str:
    """What If-Range takes: a strong ETag or a time."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag


def _pause(failures: int) -> float:
    """Grows, with chance in it, so that many processes do not come back at once; the seeded generators stay untouched."""
    return PAUSE_S * 2 ** (failures - 1) * random.Random().uniform(0.75, 1.25)


def _verify(checksum: str | None, partial: Partial, attempts: int) -> None:
    if checksum is not None and not has_checksum(partial.path, checksum):
        partial.discard()
        raise TransferError(f"its {checksum.partition(':')[0]} checksum differs from the official one: deleted", attempts)


@contextmanager
def _reasons() -> Iterator[None]:
    """Give each way to fail one short reason, and the number of attempts it is worth."""
    try:
        yield
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise TransferError(f"nothing came for {TIMEOUT_S[1]:g} s") from error
    except requests.exceptions.SSLError as error:
        raise TransferError(f"no secure connection: {_cause(error)}", attempts=1) from error
    except requests.exceptions.ProxyError as error:
        raise TransferError("no connection to the proxy", ATTEMPTS_TO_CONNECT) from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError) as error:
        if isinstance(_cause(error), (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)):
            raise TransferError("no connection", ATTEMPTS_TO_CONNECT) from error
        raise TransferError("the connection broke") from error
    except requests.RequestException as error:  # an address that is none, redirects in a circle
        raise TransferError(str(error), attempts=1) from error


def _cause(error: Exception) -> object:
    """What urllib3 gave up for."""
    return getattr(error.args[0] if error.args else None, "reason", error)
