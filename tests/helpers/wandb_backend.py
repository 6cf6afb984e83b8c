"""A small W&B server for its real client: it records what arrives and can be made to fail."""

import contextlib
import gzip
import json
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "f00d" * 10


@dataclass
class Run:
    """Data that arrived for one run: history and files in full, of others the last value."""

    about: dict[str, Any] = field(default_factory=dict)  # displayName, groupName, tags, sweep …
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.files["wandb-summary.json"])

    def logged(self, name: str) -> list[Any]:
        return [row[name] for row in self.history if name in row]


class Backend:
    """Serves ``url`` until closed.

    Attributes:
        status: other than 200: the answer to every query.
        schedule: parameters of the runs for agents, by run id; then agents must exit.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = defaultdict(Run)
        self.schedule: dict[str, dict[str, Any]] = {}
        self.sweep = ""  # its YAML
        self.bodies: list[str] = []  # of all requests
        self.given: list[str] = []
        self.status = 200
        self.closed = False
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"backend": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.closed = True
        self.server.shutdown()
        self.server.server_close()

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        operation = query.split("(")[0].split("{")[0].split()[-1]
        answer = getattr(self, f"on_{operation.lower()}", None)
        return answer(given) if answer else {}

    def on_viewer(self, given):
        return {
            "viewer": {
                "id": "u",
                "entity": "e",
                "username": "e",
                "email": "",
                "flags": "{}",
                "teams": {"edges": []},
            }
        }

    def on_serverfeaturesquery(self, given):
        return {"serverInfo": {"features": []}}

    def on_runresumestatus(self, given):
        bucket = self.stored(given["name"]) if given["name"] in self.runs else None
        return {
            "model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}, "bucket": bucket}
        }

    def stored(self, name: str) -> dict[str, Any]:
        """The form in which the client reads a run that it resumes."""
        run = self.runs[name]
        tail = json.dumps([json.dumps(row) for row in run.history[-1:]])
        return {
            "id": name,
            "name": name,
            "summaryMetrics": "{}",
            "displayName": run.about.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": tail,
            "eventsTail": "[]",
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "tags": [],
            "notes": "",
            "wandbConfig": json.dumps({"t": 1}),
        }

    def on_upsertbucket(self, given):
        run = self.runs[given["name"]]
        run.about |= {key: value for key, value in given.items() if value is not None}
        run.config |= {
            key: spec["value"]
            for key, spec in json.loads(given["config"] or "{}").items()
            if key != "_wandb"
        }
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "e"}}
        known = {
            "name": given["name"],
            "displayName": given["displayName"],
            "sweepName": given["sweep"],
            "project": project,
        }
        bucket = {
            "id": "r",
            "description": "",
            "config": "{}",
            "historyLineCount": len(run.history),
            **known,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def on_createrunfiles(self, given):
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"}
            for name in given["files"]
        ]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def on_artifacttype(self, given):
        return {"project": None}

    def on_createartifact(self, given):
        sequence = {"id": "s", "latestArtifact": None}
        return {
            "createArtifact": {
                "artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}
            }
        }

    def on_upsertsweep(self, given):
        self.sweep = given["config"]
        return {
            "upsertSweep": {
                "sweep": {
                    "name": "s1",
                    "project": {"id": "p", "name": "twotower", "entity": {"name": "e"}},
                }
            }
        }

    def on_sweepwithruns(self, given):
        return {
            "project": {
                "sweep": {
                    "id": "s1",
                    "name": "s1",
                    "state": "RUNNING",
                    "config": self.sweep,
                    "runs": {"edges": []},
                }
            }
        }

    def on_createagent(self, given):
        return {"createAgent": {"agent": {"id": "a1"}}}

    def on_heartbeat(self, given):
        commands: list[dict[str, Any]] = []
        waiting = [name for name in self.schedule if name not in self.given]
        if not json.loads(given["runState"]):  # the agent is idle
            commands = [self.command(waiting[0])] if waiting else [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "a1"}, "commands": json.dumps(commands)}}

    def command(self, name: str) -> dict[str, Any]:
        self.given.append(name)
        arguments = {key: {"value": value} for key, value in self.schedule[name].items()}
        return {"type": "run", "run_id": name, "program": "src/train.py", "args": arguments}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        run = self.runs[name]
        chunk = sent.get("files", {}).get("wandb-history.jsonl", {})
        if chunk:
            run.history[chunk["offset"] :] = [json.loads(line) for line in chunk["content"]]
        if sent.get("complete"):
            run.exit_code = sent["exitcode"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: Backend

    def log_message(self, *args: Any) -> None:
        pass

    def body(self) -> bytes:
        if self.backend.closed:
            raise ConnectionAbortedError  # connections that are kept open die with the server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def reply(self, code: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.reply(404, {})

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("/", 3)
        body = self.body()
        self.backend.runs[run].files[name] = body
        self.backend.bodies.append(body.decode(errors="replace"))
        self.reply(200, {})

    def do_POST(self) -> None:
        text = self.body().decode(errors="replace")
        if self.path.startswith("/sdk/otel"):
            return self.reply(404, {})
        self.backend.bodies.append(text)
        sent = json.loads(text)
        if self.backend.status != 200:
            return self.reply(self.backend.status, {"errors": [{"message": "refused"}]})
        if self.path.endswith("/file_stream"):
            self.backend.stream(self.path.split("/")[-2], sent)
            return self.reply(200, {"exitcode": None, "limits": {}})
        return self.reply(
            200, {"data": self.backend.answer(sent["query"], sent.get("variables") or {})}
        )


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """A URL whose server accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed_port() -> str:
    """A URL where nobody listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"
