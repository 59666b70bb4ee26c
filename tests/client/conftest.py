"""A small arena that speaks the client's part of /api/v1 over real HTTP and can cut connections; real Docker images."""

import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "t0ken-of-ada"
Json = dict[str, Any]


class Arena:
    """What the server knows, and how it shall behave: set by the tests."""

    def __init__(self) -> None:
        self.base_layers: list[str] = []
        self.story: list[Json] = [
            {"state": "scored", "score": {"utility": 0.75, "privacy": 0.5, "score": 0.6, "rank": 2}}
        ]
        self.cuts: list[int] = []  # each: the bytes of one PATCH after which the connection breaks
        self.answers: list[tuple[int, Json]] = []  # errors for the next calls below /challenges/
        self.upload_url = "/api/v1/uploads/{id}"
        self.hold: int | None = None  # from this offset on an upload gets no answer, until the test sets it to None
        self.submissions: dict[str, Json] = {}
        self.received: dict[str, bytearray] = {}
        self.sizes: dict[str, int] = {}
        self.calls: list[tuple[str, str]] = []
        self.log = "line 1\nModuleNotFoundError: No module named 'torch'\n"
        self.boards: Json = {"version": 1, "defenses": [], "attacks": []}
        self.matrix: Json = {"defenses": [], "attacks": [], "cells": []}
        self.released = threading.Event()
        self.not_modified = 0
        self.url = ""

    def enter(self, body: Json, challenge: str) -> Json:
        id = str(uuid.uuid4())
        self.received[id], self.sizes[id] = bytearray(), body["size"]
        self.submissions[id] = {
            "id": id,
            "challenge": challenge,
            "kind": body["kind"],
            "role": body.get("role"),
            "contract": body.get("contract", ""),
            "name": body.get("name") or body["file_name"],
            "note": body["note"],
            "state": "uploading",
            "active": False,
            "failure": None,
            "steps": [],
            "duels": {"done": 0, "total": 0},
            "score": None,
            "upload": {"url": self.upload_url.format(id=id), "offset": 0, "size": body["size"]},
            "url": f"/submissions/{id}",
        }
        return self.submissions[id]

    def look(self, id: str) -> Json:
        """Each look at a complete submission tells the next bit of the story."""
        submission = self.submissions[id]
        if len(self.received[id]) == self.sizes[id] and self.story:
            submission.update(self.story[0])
            if len(self.story) > 1:
                self.story.pop(0)
        return submission


class Handler(BaseHTTPRequestHandler):
    """The contract, as small as it goes."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        tag = '"' + hashlib.sha256(content).hexdigest()[:16] + '"'
        if self.command == "GET" and status == 200 and self.headers.get("If-None-Match") == tag:
            self.server.arena.not_modified += 1
            status, content = 304, b""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content)), "ETag": tag} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, status: int, detail: str, attr: str | None = None) -> None:
        self.answer(status, {"type": "client_error", "errors": [{"code": "no", "detail": detail, "attr": attr}]})

    def handle_any(self) -> None:
        arena, path = self.server.arena, self.path.removeprefix("/api/v1/")
        arena.calls.append((self.command, path))
        if found := re.fullmatch(r"uploads/([\w-]+)", path):
            self.upload(found[1])
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        if path == "token" and self.command == "POST":
            if body["password"] != "secret":
                self.refuse(400, "Email or password is wrong.")
            else:
                self.answer(200, {"token": TOKEN, "expiry": None})
        elif self.headers.get("Authorization") != f"Token {TOKEN}":
            self.refuse(401, "Invalid token.")
        elif arena.answers and path.startswith("challenges/"):
            status, error = arena.answers.pop(0)
            self.answer(status, error)
        else:
            self.route(self.command, path, body)

    do_GET = do_POST = do_HEAD = do_PATCH = do_DELETE = handle_any

    def route(self, method: str, path: str, body: Json) -> None:
        arena = self.server.arena
        fixed: dict[tuple[str, str], Any] = {
            ("GET", "me"): {"email": "ada@example.org", "name": "Ada", "teams": [{"challenge": "demo", "team": "Ada"}]},
            ("GET", "challenges"): {
                "next": f"{arena.url}/api/v1/challenges?page=2",
                "results": [{"slug": "demo", "joined": True}],
            },
            ("GET", "challenges?page=2"): {"next": None, "results": [{"slug": "second", "joined": False}]},
            ("GET", "challenges/demo"): {"slug": "demo", "joined": True},
            ("GET", "challenges/second"): {"slug": "second", "joined": False},
            ("GET", "challenges/demo/boards"): arena.boards,
            ("GET", "challenges/demo/matrix"): arena.matrix,
            ("GET", "challenges/demo/submissions"): {"next": None, "results": list(arena.submissions.values())},
            ("GET", "challenges/demo/sample"): b"PAR1 sample PAR1",
            ("GET", "base-images"): [{"name": "base", "image_id": "x", "layers": arena.base_layers}],
        }
        if (method, path) in fixed:
            self.answer(200, fixed[method, path])
        elif (method, path) == ("DELETE", "token"):
            self.answer(204)
        elif (method, path) == ("POST", "challenges/second/join"):
            self.answer(201, {"team": body["team"]})
        elif (method, path) == ("POST", "challenges/demo/submissions"):
            self.answer(201, arena.enter(body, "demo"))
        elif (found := re.fullmatch(r"submissions/([\w-]+)(/log|/withdraw)?", path)) and found[1] in arena.submissions:
            if found[2] == "/withdraw":
                arena.story = [{"state": "withdrawn"}]
            self.answer(200, {"log": arena.log} if found[2] == "/log" else arena.look(found[1]))
        else:
            self.refuse(404, "Not found.")

    def upload(self, id: str) -> None:
        arena = self.server.arena
        received = arena.received[id]
        assert self.headers["Tus-Resumable"] == "1.0.0"
        if self.command == "HEAD":
            self.answer(200, None, {"Upload-Offset": str(len(received)), "Upload-Length": str(arena.sizes[id])})
            return
        length, offset = int(self.headers["Content-Length"]), int(self.headers["Upload-Offset"])
        if offset != len(received):
            self.rfile.read(length)
            self.refuse(409, "The offset does not match.")
            return
        taken = min(length, arena.cuts.pop(0)) if arena.cuts else length
        received += self.rfile.read(taken)
        if taken < length:  # as a dropped line looks: bytes kept, no answer
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if arena.hold is not None and len(received) >= arena.hold:
            arena.released.wait(60)
        self.answer(204, None, {"Upload-Offset": str(len(received)), "Tus-Resumable": "1.0.0"})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    arena: Arena

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what some tests are about."""


@pytest.fixture
def arena() -> Iterator[Arena]:
    server = Server(("127.0.0.1", 0), Handler)
    server.arena = Arena()
    server.arena.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.arena
    server.arena.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config folder of its own, for this process and the commands it starts."""
    folder = tmp_path / "home"
    for name in ("ANOMED_SERVER", "ANOMED_TOKEN", "ANOMED_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder / "anomed"


Anomed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def anomed(home: Path, tmp_path: Path) -> Anomed:
    """Runs the command as a person's shell would; keywords are environment variables."""

    def run(*arguments: object, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "anomed", *map(str, arguments)],
            capture_output=True,
            text=True,
            input=stdin,
            cwd=tmp_path,
            env=os.environ | environment,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def signed_in(arena: Arena, anomed: Anomed) -> Arena:
    done = anomed("login", "--server", arena.url, "--token", "-", stdin=f"{TOKEN}\n")
    assert done.returncode == 0, done.stderr
    return arena


def run_docker(*arguments: str, content: bytes = b"") -> str:
    done = subprocess.run(["docker", *arguments], input=content, capture_output=True, check=True)
    return done.stdout.decode().strip()


def make_layer(**files: bytes) -> bytes:
    """A file system layer with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def docker_images() -> Iterator[dict[str, str]]:
    """Names of two real images: `base`, and `kit`, which adds to it two layers of the same content."""
    mark = uuid.uuid4().hex[:12]
    names = {"base": f"anomed-client-test-{mark}:base", "kit": f"anomed-client-test-{mark}:kit"}
    run_docker("import", "-", names["base"], content=make_layer(base=os.urandom(300_000)))
    latest, containers = names["base"], []
    for tag in ("step", "kit"):
        container = run_docker("create", latest, "/run")
        containers.append(container)
        run_docker("cp", "-", f"{container}:/", content=make_layer(run=b"#!/bin/sh\n"))
        latest = f"anomed-client-test-{mark}:{tag}"
        run_docker("commit", container, latest)
    yield names
    run_docker("rm", *containers)
    run_docker("rmi", names["kit"], f"anomed-client-test-{mark}:step", names["base"])


@pytest.fixture
def docker() -> Callable[..., str]:
    """Runs the real docker command; returns what it prints."""
    return run_docker


@pytest.fixture
def layer_tar() -> Callable[..., bytes]:
    """Makes a file system layer: names and contents as keywords."""
    return make_layer


@pytest.fixture
def base_layers(docker_images: dict[str, str]) -> list[str]:
    layers: list[str] = json.loads(run_docker("image", "inspect", docker_images["base"]))[0]["RootFS"]["Layers"]
    return layers
