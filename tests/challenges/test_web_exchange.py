"""Whole exchanges by HTTP, without containers: a scenario's plan, the real gateway, an image that is a small server."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest

from challenges.scenarios import registry
from challenges.scenarios.base import Board
from tests.challenges.web_images import Arrays, answers_by_age, packed, released, unpacked

MakeBoard = Callable[..., Board]
SCENARIO = registry.get("model-membership")
WEB = SCENARIO.images("web/1")
Answer = Callable[["Image", bytes], bytes]


class Image:
    """What an image knows of the world: where the challenge is, and where its target."""

    def __init__(self, challenge: int, target: int, kept: Path) -> None:
        self.challenge, self.attacked, self.kept = challenge, target, kept

    def get(self, route: str) -> Arrays:
        return unpacked(_asked(self.challenge, "GET", route, None, 200))

    def post(self, route: str, **arrays: Any) -> None:
        _asked(self.challenge, "POST", route, packed(**arrays), 201)

    def refused(self, method: str, route: str, body: bytes | None = None) -> int:
        return _status(self.challenge, method, route, body)[0]

    def predict(self, x: Any) -> Arrays:
        return unpacked(_asked(self.attacked, "POST", "/predict", packed(X=x), 201))


def _status(port: int, method: str, route: str, body: bytes | None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, route, body)
    response = connection.getresponse()
    return response.status, response.read()


def _asked(port: int, method: str, route: str, body: bytes | None, expected: int) -> bytes:
    status, answer = _status(port, method, route, body)
    assert status == expected, (route, status, answer)
    return answer


@contextmanager
def serving(image: Image, routes: dict[str, Answer], port: int) -> Iterator[None]:
    """The image's server, at work in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, b'{"message": "alive"}')

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.reply(201, routes[self.path.partition("?")[0]](image, body))

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def exchanged(step: str, board: Board, folder: Path, routes: dict[str, Answer]) -> dict[str, Any]:
    """One step of a web image; its result is in folder/result."""
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True)
    WEB.write_inputs(step, board, folder / "in")
    kept = folder / "in" / "model"
    if step == "fit":
        kept = folder / "out" / "model"
        kept.mkdir()
    port, challenge, target = _free_ports(3)
    with serving(Image(challenge, target, kept), routes, port):
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "sandbox.gateway", f"--input={folder / 'in'}", f"--output={folder / 'out'}"),
                *(f"--server={port}", f"--challenge={challenge}", f"--target={target}"),
            ],
            timeout=90,
            check=False,
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 0, ended.stderr
    return WEB.read_outputs(step, board, folder / "out", folder / "result")


def _free_ports(number: int) -> list[int]:
    sockets = [socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def fit(image: Image, _body: bytes) -> bytes:
    held = image.get("/data/anonymizer/training?anonymizer=example_anonymizer")
    np.savez(image.kept / "nearest.npz", age=held["X"][:, 0], y=held["y"])
    return b"{}"


def predict(image: Image, body: bytes) -> bytes:
    with np.load(image.kept / "nearest.npz") as model:
        return packed(prediction=answers_by_age(unpacked(body)["X"][:, 0], model["age"], model["y"]))


def fit_an_attack(image: Image, _body: bytes) -> bytes:
    members = image.get("/data/deanonymizer/members")
    assert image.predict(members["X"])["prediction"].dtype == np.int64
    return b"{}"


def infer(image: Image, _body: bytes) -> bytes:
    """Tries what it must not, then posts its honest scores, and then others."""
    assert image.refused("GET", "/data/anonymizer/training") == 404
    assert image.refused("GET", "/data/attack-success-evaluation?data_split=test") == 400
    held = image.get("/data/attack-success-evaluation?data_split=validation&anonymizer=a&deanonymizer=b")
    likely = image.predict(held["X"])["probabilities"][np.arange(len(held["y"])), held["y"]]
    route = "/utility/deanonymizer?anonymizer=a&deanonymizer=b&data_split=validation"
    image.post(route, prediction=likely > 0.5, score=likely)
    assert image.refused("POST", route, packed(prediction=likely > 2)) == 403
    return b"{}"


@pytest.mark.timeout(120)
def test_a_whole_game_by_http_ends_as_one_without(make_board: MakeBoard, tmp_path: Path) -> None:
    board = make_board()
    facts = exchanged("fit", board, tmp_path / "fit", {"/fit": fit, "/predict": predict})
    assert facts["files"] == 1
    assert facts["web"]["routes"]["POST /fit"] == 201
    fitted = replace(board, previous=tmp_path / "fit" / "result")
    exchanged("predict", fitted, tmp_path / "predict", {"/predict": predict})
    by_http = np.load(tmp_path / "predict" / "result" / "answers.npy")
    without = released(board, tmp_path / "without").release
    assert without is not None
    np.testing.assert_array_equal(by_http, np.load(without / "answers.npy"))

    attacked = replace(board, release=tmp_path / "predict" / "result")
    facts = exchanged("attack", attacked, tmp_path / "attack", {"/fit": fit_an_attack, "/evaluate": infer})
    deal = board.deal
    assert facts["rows"] == len(deal.scored)
    assert facts["web"]["queries"] == len(deal.scored) + int(deal.revealed_member.sum())
    assert facts["web"]["live"] == 0
    assert facts["web"]["routes"]["GET /data/anonymizer/training"] == 404
    scores = np.load(tmp_path / "attack" / "result" / "scores.npy")
    assert len(np.unique(scores)) > 2, "the first post counts, with its scores"
