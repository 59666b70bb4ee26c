"""How the gateway calls a server: patiently where a proxy is in the way, and never longer or more than was planned."""

import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway_program import ALIVE, DONE, Program, answer

FIT = {"calls": [{"post": "/fit"}]}
PREDICT = {"calls": [{"post": "/predict", "body": "queries", "save": "said/prediction", "limit": 1000}]}


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path, files={"queries": b"\x00queries", "table": b"patients"})


def slowly(*pieces, seconds=0.05):
    """A script that says piece after piece, until the gateway hangs up."""

    def script(body, connection):
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(seconds)

    return script


def forever(first, piece):
    """A script that never ends."""

    def script(body, connection):
        connection.sendall(first)
        while True:
            connection.sendall(piece)

    return script


def drip(first, piece=b"x"):
    """A script that never ends, and takes its time."""

    def script(body, connection):
        connection.sendall(first)
        while True:
            connection.sendall(piece)
            time.sleep(0.1)

    return script


def in_turn(*answers):
    """A script that says something else each time, and the last thing for ever."""
    left = list(answers)
    return lambda body, connection: left.pop(0) if len(left) > 1 else left[0]


def said(program, answered, **plan):
    """How an exchange ends in which POST /predict is answered so."""
    outcome = program.play({"POST /predict": answered}, **(PREDICT | plan))
    kept = outcome.output / "said/prediction"
    return outcome, kept.read_bytes() if kept.exists() else None


GOOD = {
    "as usual": answer(201, b"\x00said"),
    "old HTTP": b"HTTP/1.0 201 Created\r\n\r\n\x00said",
    "until the end": b"HTTP/1.1 201 Created\r\n\r\n\x00said",
    "chunks": b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\x00sa\r\n2\r\nid\r\n0\r\n\r\n",
    "go on": b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + answer(201, b"\x00said"),
}


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
def test_kinds_of_http(program, raw):
    bodies = []

    def predict(body, connection):
        bodies.append(body)
        return raw

    outcome, kept = said(program, predict)
    assert (outcome.status, kept, bodies) == (0, b"\x00said", [b"\x00queries"]), outcome.log
    assert outcome.report["routes"] == {"GET /": 200, "POST /predict": 201}
    assert "POST /predict -> 201" in outcome.log


def test_nothing_is_unpacked(program):
    packed = gzip.compress(bytes(500_000))
    outcome, kept = said(program, lambda body, connection: answer(201, packed, "Content-Encoding: gzip\r\n"))
    assert (outcome.status, kept) == (0, packed)


def test_slow_drip_that_ends(program):
    outcome, kept = said(program, slowly(*(bytes([letter]) for letter in answer(201, b"said"))))
    assert (outcome.status, kept) == (0, b"said")


BAD = {
    "refusal": (answer(500, b"no \x1b[31mmodel"), "POST /predict was answered by 500."),
    "redirect": (answer(302, head="Location: http://127.0.0.1:8002/predict\r\n"), "POST /predict was answered by 302."),
    "another good status": (answer(200), "POST /predict was answered by 200."),
    "too much": (answer(201, bytes(1001)), "POST /predict failed: its answer is too large."),
    "cut": (
        b"HTTP/1.1 201 Created\r\nContent-Length: 900\r\n\r\nhalf",
        "POST /predict failed: its answer was cut short.",
    ),
    "cut chunk": (
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        "POST /predict failed: no answer: IncompleteRead.",
    ),
    "odd chunk": (
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nhalf\r\n",
        "POST /predict failed: no answer: IncompleteRead.",
    ),
    "nothing": (b"", "POST /predict failed: no answer: RemoteDisconnected."),
    "garbage": (b"\x00\x01\x02\r\n\r\n", "POST /predict failed: no answer: BadStatusLine."),
    "odd status": (b"HTTP/1.1 9999999 X\r\n\r\n", "POST /predict failed: no answer: BadStatusLine."),
    "many headers": (
        b"HTTP/1.1 201 Created\r\n" + b"X: x\r\n" * 200 + b"\r\n",
        "POST /predict failed: no answer: HTTPException.",
    ),
    "endless header": (
        b"HTTP/1.1 201 Created\r\nX: " + b"x" * 100_000,
        "POST /predict failed: no answer: LineTooLong.",
    ),
}


@pytest.mark.parametrize(("raw", "problem"), BAD.values(), ids=BAD)
def test_bad_answers(program, raw, problem):
    outcome, kept = said(program, lambda body, connection: raw)
    assert (outcome.status, kept, outcome.report["problem"]) == (11, None, problem), outcome.log
    assert outcome.participant.seen == ["GET /", "POST /predict"]
    assert "Traceback" not in outcome.log
    assert "\x1b" not in outcome.log


def test_optional_call(program):
    plan = {"calls": [{"post": "/evaluate", "optional": True}, {"post": "/fit"}]}
    outcome = program.play({"POST /fit": lambda body, connection: DONE}, **plan)
    assert outcome.status == 0
    assert outcome.report["routes"] == {"GET /": 200, "POST /evaluate": 404, "POST /fit": 201}


def test_why_it_was_refused(program):
    """Whoever reads the log sees what the server had to say."""
    outcome, _kept = said(program, lambda body, connection: answer(503, b'{"title": "not fitted"}'))
    assert '{"title": "not fitted"}' in outcome.log


ENDLESS = {
    "endless body": forever(b"HTTP/1.1 201 Created\r\nContent-Length: 999999999999\r\n\r\n", b"x" * 65536),
    "endless until the end": forever(b"HTTP/1.1 201 Created\r\n\r\n", b"x" * 65536),
    "endless refusal": forever(b"HTTP/1.1 500 Oh\r\n\r\n", b"x" * 65536),
}
DRIPS = {
    "slow status": drip(b"HT"),
    "slow header": drip(b"HTTP/1.1 201 Created\r\nX: "),
    "slow headers": drip(b"HTTP/1.1 201 Created\r\n", b"X: x\r\n"),
    "slow body": drip(b"HTTP/1.1 201 Created\r\n\r\n"),
    "go on": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "slow chunks": drip(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "slow trailers": drip(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n"),
    "no answer": lambda body, connection: time.sleep(20),
}


def at_once(tmp_path, scripts, request, seconds, **plan):
    """One exchange for each script, all at the same time: most of it is waiting."""

    def play(name):
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        program = Program(folder, files={"queries": b"queries"})
        return program.play({request: scripts[name]}, seconds=seconds, **plan)

    with ThreadPoolExecutor(len(scripts)) as pool:
        return dict(zip(scripts, pool.map(play, scripts), strict=True))


def test_endless(tmp_path):
    """Too much is cut off at once."""
    for name, outcome in at_once(tmp_path, ENDLESS, "POST /predict", 30, **PREDICT).items():
        assert outcome.status == 11, (name, outcome.log)
        assert not (outcome.output / "said/prediction").exists(), name


def test_time_is_over(tmp_path):
    for name, outcome in at_once(tmp_path, DRIPS, "POST /predict", 2, **PREDICT).items():
        assert outcome.status == 13, (name, outcome.log)
        assert outcome.report["routes"]["GET /"] == 200, name


def test_ready(program):
    """Once it answers with JSON; a welcome page and errors before that do not count."""
    page = answer(200, b"<html>Welcome to nginx!</html>")
    ready = in_turn(page, answer(502), b"", answer(404), answer(200, b"[" * 100_000), ALIVE)
    outcome = program.play({"GET /": ready, "POST /fit": lambda body, connection: DONE}, **FIT)
    assert (outcome.status, outcome.participant.seen) == (0, ["GET /"] * 6 + ["POST /fit"]), outcome.log


def test_starts_late(program, tmp_path):
    """The gateway is there before the server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program.ports["server"] = listener.getsockname()[1]

    def start():
        time.sleep(1)
        with socket.create_server(("127.0.0.1", program.ports["server"])) as listener:
            for said in (ALIVE, DONE):
                connection, _address = listener.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(said)

    threading.Thread(target=start, daemon=True).start()
    assert program.play({}, **FIT).status == 0


NEVER = {
    "welcome page": lambda body, connection: answer(200, b"<html>Welcome to nginx!</html>"),
    "no answer": lambda body, connection: time.sleep(20),
    "endless": forever(b"HTTP/1.1 200 OK\r\n\r\n", b"1" * 65536),
    "error": lambda body, connection: answer(502),
}


def test_never_ready(tmp_path):
    for name, outcome in at_once(tmp_path, NEVER, "GET /", 2, **FIT).items():
        assert outcome.status == 10, (name, outcome.log)
        assert outcome.report["problem"] == "It never answered GET / with status 200 and JSON."
        assert "POST /fit" not in outcome.participant.seen


def test_never_there(program):
    program.ports["server"] = 1
    assert program.play({}, seconds=2, **FIT).status == 10


# Proxies


def test_fast_bad_gateway(program):
    """nginx answers so by itself while it thinks that the application is not there: /fit has not arrived."""
    outcome = program.play({"POST /fit": in_turn(answer(502), answer(502), DONE)}, **FIT)
    assert (outcome.status, outcome.participant.seen.count("POST /fit")) == (0, 3), outcome.log


def test_slow_bad_gateway(program):
    """The application may have had it: it is not sent again."""

    def fit(body, connection):
        time.sleep(2.2)
        return answer(502)

    outcome = program.play({"POST /fit": fit}, **FIT)
    assert (outcome.status, outcome.participant.seen.count("POST /fit")) == (11, 1), outcome.log


@pytest.mark.parametrize("status", [500, 503])
def test_fit_is_never_sent_twice(program, status):
    outcome = program.play({"POST /fit": in_turn(answer(status), DONE)}, **FIT)
    assert (outcome.status, outcome.participant.seen.count("POST /fit")) == (11, 1)


@pytest.mark.parametrize(
    ("call", "route", "answers"),
    [
        (PREDICT["calls"][0], "POST /predict", (answer(503), answer(504), answer(500), answer(201, b"said"))),
        ({"get": "/anon_data", "save": "said/table"}, "GET /anon_data", (answer(500), answer(200, b"table"))),
    ],
)
def test_impatient_proxy(program, call, route, answers):
    """504: the fit goes on behind it. What comes next waits until the server is fitted."""
    scripts = {"POST /fit": lambda body, connection: answer(504), route: in_turn(*answers)}
    outcome = program.play(scripts, calls=[{"post": "/fit"}, call])
    assert outcome.status == 0, outcome.log
    assert outcome.participant.seen == ["GET /", "POST /fit"] + [route] * len(answers)
    assert outcome.report["routes"] == {"GET /": 200, "POST /fit": 504, route: 201 if "post" in call else 200}


def test_impatient_proxy_of_an_attack(program):
    """It is asked to evaluate when it is fitted; if that takes too long as well, its post is waited for."""
    plan = {
        "record": {"/utility": {"to": "said/scores"}},
        "calls": [{"post": "/fit"}, {"post": "/evaluate"}],
    }

    def evaluate(body, connection):
        count = outcome_of.count("POST /evaluate")
        outcome_of.append("POST /evaluate")
        if count == 0:
            return answer(400, b"not fitted")

        def post():
            time.sleep(1)
            program.request("POST", "/utility", b"scores")

        threading.Thread(target=post, daemon=True).start()
        return answer(504)

    outcome_of: list[str] = []
    outcome = program.play({"POST /fit": lambda body, connection: answer(504), "POST /evaluate": evaluate}, **plan)
    assert outcome.status == 0, outcome.log
    assert (outcome.output / "said/scores").read_bytes() == b"scores"
    assert len(outcome_of) == 2


def test_fit_that_never_ends_behind_a_proxy(program):
    scripts = {"POST /fit": lambda body, connection: answer(504), "POST /predict": lambda body, connection: answer(503)}
    outcome = program.play(scripts, seconds=3, calls=[{"post": "/fit"}, *PREDICT["calls"]])
    assert outcome.status == 13


def test_without_a_proxy_nobody_is_waited_for(program):
    outcome, _kept = said(program, in_turn(answer(503), answer(201, b"said")))
    assert outcome.status == 11


def test_restart_between_calls(program):
    """A connection that is refused has brought nothing to anybody: the call is made again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program.ports["server"] = listener.getsockname()[1]
    calls = []

    def serve():
        for wanted in (2, 1):
            with socket.create_server(("127.0.0.1", program.ports["server"])) as listener:
                for _call in range(wanted):
                    connection, _address = listener.accept()
                    if _call == 1:  # before it is answered nobody listens any more
                        listener.close()
                    with connection:
                        calls.append(connection.recv(1 << 16).split(b" HTTP")[0])
                        connection.sendall(ALIVE if len(calls) == 1 else DONE)
            time.sleep(1.5)

    threading.Thread(target=serve, daemon=True).start()
    outcome = program.play({}, calls=[{"post": "/fit"}, {"post": "/evaluate"}])
    assert (outcome.status, calls) == (0, [b"GET /", b"POST /fit", b"POST /evaluate"]), outcome.log


def test_server_that_does_not_listen_to_the_end(program):
    """It says no while a large body is on its way."""
    program.files["queries"] = bytes(20_000_000)
    listener = socket.create_server(("127.0.0.1", 0))
    program.ports["server"] = listener.getsockname()[1]

    def serve():
        for said in (ALIVE, answer(413)):
            connection, _address = listener.accept()
            connection.recv(1 << 12)
            connection.sendall(said)
            time.sleep(0.3)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    outcome = program.play({}, **PREDICT)
    listener.close()
    assert outcome.status == 11
    assert outcome.report["routes"]["POST /predict"] in (0, 413)  # a reset can take the answer with it
