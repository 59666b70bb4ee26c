"""What a participant's server gets of the gateway, and what it does not."""

import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from gateway_program import DONE, SANDBOX, Outcome, Program, pack

from sandbox.gateway.plan import Plan, PlanError

ROWS = np.array([[0.0, 1.0], [1.0, np.nan], [-0.0, 3.0]])
PLAN = {
    "serve": {
        "/data/training": {"file": "training.bin"},
        "/data/evaluation": {"by": "data_split", "files": {"tuning": "training.bin", "validation": "other.bin"}},
    },
    "record": {
        "/utility": {
            "by": "data_split",
            "limit": 100_000,
            "to": {"tuning": None, "validation": "said/scores"},
            "mark": {"tuning": {"truth": "truth.npz", "measure": "membership"}},
        },
        "/form": {"to": "said/form", "limit": 100_000, "parts": ["anon_data", "anon_scheme"], "required": False},
    },
    "calls": [{"post": "/fit"}],
}
FILES = {
    "training.bin": bytes(range(256)) * 5000,
    "other.bin": b"others",
    "truth.npz": pack(y=np.array([True, True, False, False])),
}


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path, files=dict(FILES))


def during(program, act, **plan) -> Outcome:
    """An exchange in which the participant's fit is `act`. What `act` asserts is asserted."""
    problems: list[BaseException] = []

    def fit(body, connection):
        try:
            act()
        except BaseException as problem:  # is raised again in the test's own thread
            problems.append(problem)
        return DONE

    outcome = program.play({"POST /fit": fit}, **(PLAN | plan))
    if problems:
        raise problems[0]
    return outcome


def test_serves_and_records(program):
    def act():
        assert program.request("GET", "/data/training") == (200, FILES["training.bin"])
        assert program.request("GET", "/data/training?anonymizer=whoever&x=") == (200, FILES["training.bin"])
        assert program.request("GET", "/data/evaluation?data_split=validation") == (200, b"others")
        status, mark = program.request("POST", "/utility?data_split=tuning", pack(prediction=np.array([1, 0, 1, 0])))
        assert (status, json.loads(mark)) == (201, {"accuracy": 0.5, "tpr": 0.5, "fpr": 0.5})
        assert program.request("POST", "/utility?data_split=validation", b"\x00scores") == (201, b"{}")

    outcome = during(program, act)
    assert outcome.status == 0, outcome.log
    assert (outcome.output / "said/scores").read_bytes() == b"\x00scores"
    assert outcome.report["routes"]["POST /fit"] == 201
    assert outcome.report["routes"]["GET /data/training"] == 200
    assert outcome.report["calls"] == ["GET /", "POST /fit"]
    assert {"GET /data/training", "GET /data/evaluation", "POST /utility"}.isdisjoint(outcome.report["unasked"])
    assert outcome.report["unasked"]
    assert "POST /utility?data_split=validation -> 201" in outcome.log


def test_refuses(program):
    """Each refusal says why, in JSON, and nothing of it is kept."""
    validation = "/utility?data_split=validation"
    tuning = "/utility?data_split=tuning"
    refusals = [
        ("GET", "/", None, 404),
        ("GET", "/data/other", None, 404),
        ("GET", "/plan.json", None, 404),
        ("GET", "/../input/plan.json", None, 404),
        ("GET", "/data/training/../../plan.json", None, 404),
        ("GET", "/%64ata/training", None, 404),
        ("GET", "//[", None, 404),  # http.server takes it for one slash, so that nobody is led elsewhere
        ("GET", "/data/evaluation", None, 400),
        ("GET", "/data/evaluation?data_split=secret", None, 400),
        ("GET", "/data/evaluation?data_split=../plan.json", None, 400),
        ("GET", "/data/training?" + "&".join("abcdefghijklmnopqrstuvwxyz"), None, 400),
        ("GET", "/data/training?" + "&".join(f"{letter}=1" for letter in "abcdefghijklmnopqrstuvwxyz"), None, 400),
        ("GET", validation, None, 405),
        ("POST", "/data/training", b"mine", 405),
        ("PUT", validation, b"mine", 405),
        ("DELETE", "/data/training", None, 405),
        ("PATCH", "/nowhere", b"mine", 404),
        ("POST", "/nowhere", b"x" * 2_000_000, 404),
        ("POST", "/predict", pack(X=ROWS), 404),
        ("POST", validation, b"x" * 100_001, 413),
        ("POST", "/utility?data_split=other", b"scores", 400),
        ("POST", "/utility", b"scores", 400),
        ("POST", tuning, b"no archive", 400),
        ("POST", tuning, pack(other=np.zeros(4)), 400),
        ("POST", tuning, pack(prediction=np.zeros(5)), 400),
        ("POST", tuning, pack(prediction=np.array(["a", "b", "c", "d"])), 400),
    ]

    def act():
        for method, route, body, wanted in refusals:
            status, said = program.request(method, route, body)
            assert status == wanted, (method, route)
            assert json.loads(said)["title"], (method, route)
        assert program.request("OPTIONS", "/data/training")[0] == 405
        assert program.request("HEAD", "/data/training") == (405, b"")

    outcome = during(program, act)
    assert outcome.status == 12, outcome.log  # nothing came to /utility
    assert outcome.report["problem"] == "Nothing was posted to /utility."
    assert not (outcome.output / "said").exists()
    assert not list((outcome.output / "taking").iterdir())
    assert "GET /plan.json -> 404" in outcome.log


def test_only_the_first_post_counts(program):
    route = "/utility?data_split=validation"

    def act():
        answers: list[int] = []
        posts = [f"scores {number}".encode() for number in range(20)]
        threads = [
            threading.Thread(target=lambda post=post: answers.append(program.request("POST", route, post)[0]))
            for post in posts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [201] + [403] * 19
        assert program.request("POST", route, b"better")[0] == 403

    outcome = during(program, act)
    assert outcome.status == 0
    assert (outcome.output / "said/scores").read_bytes().startswith(b"scores ")


def test_a_post_that_breaks_off_is_none(program):
    """And another may follow."""
    route = "/utility?data_split=validation"

    def act():
        head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
        assert b" 400 " in program.raw(head, b"half")
        assert program.request("POST", route, b"whole")[0] == 201

    outcome = during(program, act)
    assert (outcome.output / "said/scores").read_bytes() == b"whole"


def test_form(program):
    """Parts without a file name are kept as the bytes they are."""
    boundary = "5f0e7c"
    parquet = b"PAR1\r\n\x00\xff--5f0e\r\n\r\nPAR1"

    def form(*parts):
        return (
            b"".join(
                b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary.encode(), name, content)
                for name, content in parts
            )
            + b"--%b--\r\n" % boundary.encode()
        )

    def act():
        whole = form((b"anon_data", parquet), (b"anon_scheme", b"same"))
        kind = f"multipart/form-data; boundary={boundary}"
        for body, content_type in (
            (form((b"anon_data", parquet)), kind),
            (whole, "application/octet-stream"),
            (whole, "multipart/form-data"),
            (whole[:-20], kind),
        ):
            status, said = program.request("POST", "/form", body, Content_Type=content_type)
            assert status == 400
            assert json.loads(said)["title"]
        assert program.request("POST", "/form", whole)[0] == 400
        assert program.request("POST", "/form", whole, Content_Type=kind) == (201, b"{}")
        assert program.request("POST", "/utility?data_split=validation", b"scores")[0] == 201

    outcome = during(program, act)
    assert outcome.status == 0, outcome.log
    assert (outcome.output / "said/form.anon_data").read_bytes() == parquet
    assert (outcome.output / "said/form.anon_scheme").read_bytes() == b"same"


def test_kinds_of_http(program):
    """Chunks, an old version of HTTP, a client that asks first, one that stays for more."""
    route = b"/utility?data_split=validation"

    def act():
        assert program.raw(b"GET /data/evaluation?data_split=validation HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nothers")
        two = b"GET /data/evaluation?data_split=validation HTTP/1.1\r\nHost: x\r\n\r\n" * 2
        assert program.raw(two).count(b"others") == 2
        asking = program.raw(
            b"POST %b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n" % b"/nowhere"
        )
        assert b" 404 " in asking
        chunked = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % route
        chunks = b"3;note=x\r\nsco\r\n3\r\nres\r\n0\r\nTrailer: x\r\n\r\n"
        again = b"GET /data/evaluation?data_split=validation HTTP/1.1\r\nHost: x\r\n\r\n"
        both = program.raw(chunked, chunks, again)
        assert both.startswith(b"HTTP/1.1 201 ")
        assert both.endswith(b"others")

    outcome = during(program, act)
    assert outcome.status == 0, outcome.log
    assert (outcome.output / "said/scores").read_bytes() == b"scores"


def test_client_that_asks_before_it_sends(program):
    def act():
        route = b"POST /utility?data_split=validation HTTP/1.1\r\nHost: x\r\n"
        said = program.raw(route + b"Expect: 100-continue\r\nContent-Length: 6\r\n\r\n", b"scores")
        assert said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")

    assert during(program, act).status == 0


BAD_HTTP = {
    "endless first line": (b"GET /" + b"x" * 100_000, 414),
    "endless header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431),
    "large headers": (b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * 1000 + b"\r\n") * 50 + b"\r\n", 431),
    "garbage": (b"\x16\x03\x01 \x00 \x01\r\n\r\n", 400),
    "another version": (b"GET / HTTP/7.0\r\n\r\n", 505),
    "another method": (b"TRACE / HTTP/1.1\r\n\r\n", 501),
    "no length": (b"POST /utility HTTP/1.1\r\n\r\n", 411),
    "no number": (b"POST /utility HTTP/1.1\r\nContent-Length: five\r\n\r\n", 400),
    "below nothing": (b"POST /utility HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
    "odd digit": ("POST /utility HTTP/1.1\r\nContent-Length: ²\r\n\r\n".encode("latin-1"), 400),
    "astronomic length": (b"POST /utility HTTP/1.1\r\nContent-Length: " + b"9" * 9000 + b"\r\n\r\n", 413),
    "more than it may": (b"POST /utility HTTP/1.1\r\nContent-Length: 100001\r\n\r\n", 413),
    "odd chunk": (b"POST /utility HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "chunk below nothing": (b"POST /utility HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n", 400),
    "large chunk": (b"POST /utility HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n", 413),
    "endless chunk line": (b"POST /utility HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 9000, 400),
    "cut chunk": (b"POST /utility HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", 400),
    "many chunks": (
        b"POST /utility HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_001 + b"0\r\n\r\n",
        413,
    ),
    "endless trailers": (
        b"POST /utility HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: x\r\n" * 100 + b"\r\n",
        400,
    ),
    "two bodies": (b"POST /nowhere HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /data/training HTTP/1.1\r\n\r\n", 404),
}


def test_bad_http(program):
    """Each is answered in JSON, and hung up on; the next client does not notice."""

    def act():
        for name, (request, status) in BAD_HTTP.items():
            said = program.raw(request)
            assert said.startswith(b"HTTP/1.1 %d " % status), (name, said[:200])
            assert said.count(b"HTTP/1.1 ") == 1, name
            assert json.loads(said.partition(b"\r\n\r\n")[2])["title"], name
        assert program.request("GET", "/data/evaluation?data_split=validation")[1] == b"others"
        assert program.request("POST", "/utility?data_split=validation", b"scores")[0] == 201

    outcome = during(program, act)
    assert outcome.status == 0, outcome.log
    assert "Traceback" not in outcome.log


def test_body_of_a_get(program):
    """It is not taken for the next request."""

    def act():
        hidden = b"POST /utility?data_split=validation HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
        get = b"GET /data/evaluation?data_split=validation HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(hidden)
        assert program.raw(get, hidden).endswith(b"others")

    assert during(program, act).status == 12


def test_more_connections_than_there_is_room(program):
    def act():
        address = ("127.0.0.1", program.ports["challenge"])
        held = [socket.create_connection(address) for _number in range(32)]
        time.sleep(0.3)  # until the last one is counted
        status, said = program.request("GET", "/data/training")
        assert (status, json.loads(said)["title"]) == (503, "Too many connections at once.")
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 10
        while program.request("GET", "/data/training")[0] != 200:
            assert time.monotonic() < deadline
        program.request("POST", "/utility?data_split=validation", b"scores")

    assert during(program, act).status == 0


def test_names_of_the_strangers_making(program):
    """Routes that a server invents do not push aside what the platform did, nor do they break a log's lines."""

    def act():
        for number in range(120):
            program.request("GET", f"/{number}" + "x" * 300)
        program.raw("GET /a\x1b[31m\x00é HTTP/1.1\r\n\r\n".encode("latin-1"))
        program.request("POST", "/utility?data_split=validation", b"scores")

    outcome = during(program, act)
    routes = outcome.report["routes"]
    assert len(routes) == 100
    assert max(map(len, routes)) <= 100
    assert routes["POST /fit"] == 201
    assert "\x1b" not in outcome.log
    assert outcome.log.isascii()


def test_no_room(program, tmp_path):
    """A full /output refuses posts, breaks nothing, and has room for the report."""
    program.output_folder = tmp_path / "small"
    program.output_folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", program.output_folder], check=True)
    try:
        plan = {
            "record": {"/utility": {"to": "scores", "limit": 10_000_000}},
            "calls": [{"post": "/fit"}, {"post": "/predict", "save": "large", "limit": 10_000_000}],
        }

        def act():
            status, said = program.request("POST", "/utility", b"x" * 2_000_000)
            assert (status, "no room" in json.loads(said)["title"]) == (413, True)
            assert program.request("POST", "/utility", b"x" * 150_000)[0] == 201

        outcome = during(program, act, **plan)
        assert outcome.status == 11  # /predict is nowhere
        assert outcome.report["problem"] == "POST /predict was answered by 404."
        assert (outcome.output / "scores").stat().st_size == 150_000
    finally:
        subprocess.run(["umount", program.output_folder], check=True)


def answers(said: bytes) -> dict[str, list]:
    with np.load(io.BytesIO(said)) as arrays:
        return {name: arrays[name].tolist() for name in arrays.files}


TARGET = {
    "record": {},
    "target": {
        "/predict": {"answers": "answers.npz", "budget": 12, "live": True, "limit": 100_000},
        "/anon_data": {"file": "other.bin"},
    },
}
ANSWERS = pack(X=ROWS, prediction=np.array([7, 8, 9]), probabilities=np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]))


def test_target(program):
    """Answers by row, under a budget; on a port where nothing else is served."""
    program.files["answers.npz"] = ANSWERS

    def ask(rows):
        return program.request("POST", "/predict?batch_size=2", pack(X=rows), target=True)

    def act():
        status, said = ask(ROWS[[2, 0, 1, 2]])
        assert status == 201
        assert answers(said) == {
            "prediction": [9, 7, 8, 9], "probabilities": [[0.3, 0.7], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]],
        }  # fmt: skip
        # the other zero, NaN of another sign, and single precision are the same patients
        assert answers(ask(np.array([[0.0, 3.0]]))[1])["prediction"] == [9]
        assert answers(ask(np.array([[1.0, -np.nan]], dtype=np.float32))[1])["prediction"] == [8]
        for bad in (ROWS[:, :1], ROWS[0], ROWS[:0], np.array([["a", "b"]]), np.array([[1j, 0]])):
            assert ask(bad)[0] == 400
        assert program.request("POST", "/predict", pack(rows=ROWS), target=True)[0] == 400
        assert program.request("GET", "/anon_data", target=True) == (200, b"others")
        assert program.request("GET", "/data/training", target=True)[0] == 404
        assert program.request("GET", "/anon_data")[0] == 404
        assert program.request("GET", "/predict", target=True)[0] == 405
        assert ask(ROWS)[0] == 201  # nine so far
        status, said = ask(ROWS[[0, 1, 2, 0]])
        assert status == 429
        assert json.loads(said)["title"] == "The budget of 12 rows leaves 3; 4 were asked."
        assert ask(ROWS)[0] == 201
        assert ask(ROWS[:1])[0] == 429

    outcome = during(program, act, **TARGET)
    assert (outcome.status, outcome.asked) == (0, []), outcome.log
    assert (outcome.report["queries"], outcome.report["live"]) == (12, 0)


def test_live_questions(program):
    """Rows that are in no table are asked about on standard output; here the platform is a thread."""
    program.files["answers.npz"] = ANSWERS
    (program.inputs / "answer").mkdir(parents=True)

    def platform():
        ask, said = program.folder / "output/ask", program.inputs / "answer"
        for number in (1, 2):
            question = ask / f"{number}.npz"
            deadline = time.monotonic() + 20
            while not question.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            rows = np.load(question)["X"]
            if np.nanmax(rows) > 100:
                (said / f"{number}.refused").touch()
                continue
            total = rows.sum(axis=1).astype(int)
            (said / f"{number}.npz").write_bytes(
                pack(prediction=total, probabilities=np.tile([0.5, 0.5], (len(rows), 1)))
            )
            (said / f"{number}.ready").touch()

    def act():
        threading.Thread(target=platform, daemon=True).start()
        rows = np.vstack([[[5.0, 6.0]], ROWS[1:2], [[20.0, 1.0]]])
        status, said = program.request("POST", "/predict", pack(X=rows), target=True)
        assert (status, answers(said)["prediction"]) == (201, [11, 8, 21])
        status, said = program.request("POST", "/predict", pack(X=rows * 100), target=True)
        assert (status, json.loads(said)["title"]) == (422, "The defense gives no answer to these rows.")

    outcome = during(program, act, **TARGET)
    assert (outcome.status, outcome.asked) == (0, ["ask 1", "ask 2"]), outcome.log
    assert (outcome.report["queries"], outcome.report["live"]) == (6, 2)
    assert not list((outcome.output / "ask").iterdir())


def test_no_live_questions(program):
    program.files["answers.npz"] = ANSWERS
    target = {"/predict": {"answers": "answers.npz", "budget": 12}}

    def act():
        assert program.request("POST", "/predict", pack(X=ROWS + 1), target=True)[0] == 422

    assert during(program, act, record={}, target=target).status == 0


def test_small_question_with_a_large_answer(program):
    """What is answered is bounded like what is asked."""
    program.files["answers.npz"] = pack(X=ROWS, prediction=np.zeros(3), probabilities=np.zeros((3, 1000)))
    target = {"/predict": {"answers": "answers.npz", "budget": 10**6, "limit": 100_000}}

    def act():
        status, said = program.request("POST", "/predict", pack(X=np.zeros((1000, 2))), target=True)
        assert (status, json.loads(said)["title"]) == (413, "Ask about at most 12 rows at once.")

    assert during(program, act, record={}, target=target).status == 0


def test_port_that_is_taken(program):
    """The participant's server was there first: even if it shares the port with everybody."""
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        squatter.bind(("0.0.0.0", 0))
        squatter.listen()
        program.ports["challenge"] = squatter.getsockname()[1]
        outcome = program.play({}, **PLAN)
    assert outcome.status == 14
    assert "ports" in outcome.report["problem"]


def test_file_that_is_not_there(program):
    """Is the platform's own fault, and called so: no status that blames a participant."""
    outcome = program.play({}, **PLAN, target={"/anon_data": {"file": "nowhere.bin"}})
    assert outcome.status == 1
    assert "PlanError: plan.json: there is no nowhere.bin." in outcome.log


def test_plan_that_makes_no_sense():
    for broken in (
        {"contract": "web/2"},
        {"serve": {"/data": {"file": "../plan.json"}}},
        {"record": {"/x": {"to": "x", "limit": 0}}},
        {"record": {"/data/training": {"to": "x"}}},
        {"record": {"/x": {"to": "x", "mark": {"": {"truth": "truth.npz", "measure": "charm"}}}}},
        {"record": {"/x": {"to": "x", "mark": {"tuning": {"truth": "truth.npz", "measure": "labels"}}}}},
        {"calls": [{"post": "no route"}]},
        {"calls": [{"post": "/fit", "patience": 3}]},
        {"seconds": 0},
    ):
        with pytest.raises(PlanError):
            Plan.from_json({"contract": "web/1", "seconds": 30, "calls": [], **PLAN, **broken})


def test_runs_alone(tmp_path):
    """The folder is all that the container gets: it imports nothing else of the platform."""
    shutil.copytree(SANDBOX / "gateway", tmp_path / "gateway")
    check = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import gateway.main; "
        "assert not {'sandbox', 'django', 'challenges'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-I", "-c", check], check=True)
