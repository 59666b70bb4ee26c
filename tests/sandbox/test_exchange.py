"""Runs of images that are web servers: a real gateway talks to real containers, and nothing is left of either."""

import io
import json
import multiprocessing
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from django.db import connections
from patience import until
from web_readers import (
    answer_at_once,
    keep_all,
    read_answer,
    read_answer_by_web,
    read_told,
    write_question,
    write_question_by_web,
)
from web_servers import known, remove_images, web_image

from sandbox import actions, purposes, reaper, worker
from sandbox.contracts import Contract
from sandbox.engine import RUN
from sandbox.models import Image, Run, Slot
from sandbox.purposes import Known, Question
from sandbox.reasons import Reason

pytestmark = pytest.mark.usefixtures("leaves_nothing")

LIMITS = {"seconds": 30, "memory_mb": 256, "cpus": 1, "output_mb": 8, "pids": 64}
FIT = {"serve": {"/data/training": {"file": "training.bin"}}, "calls": [{"post": "/fit"}]}
PREDICT = {"calls": [{"post": "/predict", "body": "queries.npz", "save": "prediction", "limit": 100000}]}
ATTACK = {
    "record": {"/utility": {"by": "data_split", "to": {"tuning": None, "validation": "scores"}, "limit": 1000}},
    "target": {"/predict": {"answers": "answers.npz", "budget": 10, "live": True}},
    "calls": [{"post": "/evaluate?data_split=validation"}],
}
FILES = {"training.bin": b"patients"}
ROWS = np.array([[0.0, 1.0], [1.0, 2.0]])


def pack(**arrays) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


class Exchanges:
    """A purpose whose runs are exchanges of a given plan."""

    def __init__(self) -> None:
        self.plan: dict[str, object] = {}
        self.files: dict[str, bytes] = {}
        self.answerer: Question | None = None
        self.read: dict[str, object] = {}

    def write_inputs(self, run, folder):
        plan = {"contract": "web/1", "seconds": run.wants.seconds - 1, **self.plan}
        (folder / "plan.json").write_text(json.dumps(plan))
        for name, content in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    def reader(self, run, collected, result):
        return keep_all, (str(collected), str(result))

    def question(self, run):
        return self.answerer

    def account(self, run, told):
        return read_told, (str(told),)

    def judge(self, run, result, read):
        self.read = read

    def settle(self, run, verdict):
        self.verdict = verdict


@pytest.fixture(scope="module", autouse=True)
def engine_as_before():
    yield
    remove_images()


@pytest.fixture
def exchanges(host):
    known("anomed/base", is_base=True)
    purpose = Exchanges()
    purposes.register("exchanges", purpose)
    yield purpose
    purposes.forget("exchanges")


@pytest.fixture
def queue_exchange(exchanges):
    """Queues one exchange."""

    def queue_exchange(image, plan, files=None, *, collect=("exchange.json",), folders=(), limits=None):
        exchanges.plan, exchanges.files = plan, files or {}
        return actions.queue(
            image=image, purpose="exchanges", step="fit", limits=LIMITS | (limits or {}), owner="ada", priority=0,
            collect={"files": list(collect), "folders": list(folders)}, private=True, contract=Contract.WEB,
        )  # fmt: skip

    return queue_exchange


@pytest.fixture
def play(queue_exchange):
    """Drives one exchange to its end and returns its run."""

    def play(*args, **more):
        run = queue_exchange(*args, **more)
        worker.work()
        run.refresh_from_db()
        return run

    return play


def test_fit_predict_attack(play, exchanges, tmp_path):
    """What fit keeps is there for predict, in a fresh container; an attack is answered from the table."""
    extra = """
def evaluate():
    status, answer = fetch(TARGET + "/predict", pack(X=np.array([[1.0, 2.0], [0.0, 1.0]])))
    said = np.load(io.BytesIO(answer))["prediction"]
    return fetch(CHALLENGE + "/utility?data_split=validation", json.dumps(said.tolist()).encode())
"""
    image = web_image(tmp_path / "polite", "polite", extra)
    fitted = play(image, FIT, FILES, folders=["model"])
    assert (fitted.state, fitted.detail) == (Run.State.SUCCEEDED, "")
    assert (fitted.result_folder / "model.bin").read_bytes() == b"patients"
    log = fitted.log_path.read_text()
    assert "serving as 65534" in log
    assert "GET /data/training -> 200" in log
    files = {"queries.npz": pack(X=ROWS), "model/model.bin": b"patients"}
    predicted = play(image, PREDICT, files, collect=["exchange.json", "prediction"])
    assert predicted.state == Run.State.SUCCEEDED, predicted.detail
    assert np.load(predicted.result_folder / "prediction")["prediction"].tolist() == [0, 1]
    files = {"answers.npz": pack(X=ROWS, prediction=np.array([7, 8]))}
    attacked = play(image, ATTACK, files, collect=["exchange.json", "scores"])
    assert attacked.state == Run.State.SUCCEEDED, attacked.detail
    assert json.loads((attacked.result_folder / "scores").read_text()) == [8, 7]
    assert exchanges.read["queries"] == 2
    assert exchanges.read["routes"]["POST /utility?data_split=validation"] == 201


ASKING = """
def evaluate():
    said = []
    for rows in ROWS:
        status, answer = fetch(TARGET + "/predict", pack(X=np.array(rows, dtype=float)))
        said.append(np.load(io.BytesIO(answer))["prediction"].tolist() if status == 201 else status)
    return fetch(CHALLENGE + "/utility?data_split=validation", json.dumps(said).encode())
"""


def by_files(image, **limits):
    return Question(
        image=image, step="predict", contract=Contract.FILES, limits=LIMITS | limits,
        collect={"files": ["said.json"]},
        write=lambda asked, folder: (write_question, (str(asked), str(folder))),
        read=lambda asked, collected, answer: (read_answer, (str(collected), str(answer))),
    )  # fmt: skip


def test_live_questions(play, exchanges, make_image, tmp_path):
    """Rows that no table holds are asked of the defense's own image, one container for each question."""
    exchanges.answerer = by_files(make_image("/bin/busybox cat /input/rows.json > /output/said.json"))
    rows = [[[1.0, 2.0], [5.0, 6.0]], [[-1.0, 0.0]], [[3.0, 3.0]], [[1.0, 2.0]] * 7]
    image = web_image(tmp_path / "asking", "asking", ASKING.replace("ROWS", json.dumps(rows)))
    files = {"answers.npz": pack(X=ROWS, prediction=np.array([7, 8]))}
    run = play(image, ATTACK, files, collect=["exchange.json", "scores"])
    assert run.state == Run.State.SUCCEEDED, run.detail
    # known and new rows together; refused; new; more than the budget's rest
    assert json.loads((run.result_folder / "scores").read_text()) == [[8, 11], 422, [6], 429]
    assert (exchanges.read["queries"], exchanges.read["live"]) == (4, 2)
    assert run.timings["question"] > 0


def test_questions_to_another_server(play, exchanges, tmp_path):
    """Both sides may be servers. What the answering one has kept is put back each time; it may replace it in vain."""
    extra = """
def predict(rows):
    kept = KEPT.read_bytes()
    KEPT.with_suffix(".new").write_bytes(b"forgotten")
    KEPT.with_suffix(".new").replace(KEPT)
    return {"prediction": rows.sum(axis=1).astype(np.int64) if kept == b"patients" else np.zeros(len(rows), np.int64)}
"""
    exchanges.answerer = replace(
        by_files(web_image(tmp_path / "answering", "answering", extra)),
        contract=Contract.WEB,
        collect={"files": ["exchange.json", "prediction"]},
        write=lambda asked, folder: (write_question_by_web, (str(asked), str(folder))),
        read=lambda asked, collected, answer: (read_answer_by_web, (str(collected), str(answer))),
    )
    image = web_image(tmp_path / "asking", "asking", ASKING.replace("ROWS", "[[[5, 6]], [[7, 8]]]"))
    files = {"answers.npz": pack(X=ROWS, prediction=np.array([7, 8]))}
    run = play(image, ATTACK, files, collect=["exchange.json", "scores"])
    assert run.state == Run.State.SUCCEEDED, run.detail
    assert json.loads((run.result_folder / "scores").read_text()) == [[11], [15]]


def test_questions_without_an_image(play, exchanges, tmp_path):
    exchanges.answerer = Known(lambda asked, answer: (answer_at_once, (str(asked), str(answer))))
    image = web_image(tmp_path / "asking", "asking", ASKING.replace("ROWS", "[[[5, 6]], [[-1, 0]]]"))
    files = {"answers.npz": pack(X=ROWS, prediction=np.array([7, 8]))}
    run = play(image, ATTACK, files, collect=["exchange.json", "scores"])
    assert run.state == Run.State.SUCCEEDED, run.detail
    assert json.loads((run.result_folder / "scores").read_text()) == [[11], 422]


def test_question_that_takes_too_long(play, exchanges, make_image, tmp_path):
    """A defense that never answers does not end the attack: the question is refused while there is time left."""
    exchanges.answerer = by_files(make_image("/bin/busybox sleep 60"), seconds=60)
    image = web_image(tmp_path / "asking", "asking", ASKING.replace("ROWS", "[[[5, 6]]]"))
    files = {"answers.npz": pack(X=ROWS, prediction=np.array([7, 8]))}
    began = time.monotonic()
    run = play(image, ATTACK, files, collect=["exchange.json", "scores"], limits={"seconds": 20})
    assert run.state == Run.State.SUCCEEDED, run.detail
    assert json.loads((run.result_folder / "scores").read_text()) == [422]
    assert time.monotonic() - began < 40


def test_reaches_nobody(play, exchanges, tmp_path):
    """No network, no route but its own, no second post."""
    extra = """
def evaluate():
    tried = {}
    for name, address in (("internet", ("1.1.1.1", 80)), ("host", ("172.17.0.1", 22))):
        try:
            socket.create_connection(address, timeout=2)
            tried[name] = "reached"
        except OSError as error:
            tried[name] = type(error).__name__
    for route in ("/data/training", "/data/anonymizer/training", "/../plan.json", "/utility"):
        tried[route] = fetch(CHALLENGE + route)[0]
    tried["file"] = os.path.exists("/input")
    first = fetch(CHALLENGE + "/utility?data_split=validation", json.dumps(tried).encode())
    again = fetch(CHALLENGE + "/utility?data_split=validation", b"better")[0]
    other = fetch(CHALLENGE + "/utility?data_split=secret", b"better")[0]
    print("again", again, "other", other, flush=True)
    return first
"""
    files = {"answers.npz": pack(X=ROWS, prediction=ROWS[:, 0])}
    run = play(web_image(tmp_path / "nosy", "nosy", extra), ATTACK, files, collect=["exchange.json", "scores"])
    assert run.state == Run.State.SUCCEEDED, run.detail
    tried = json.loads((run.result_folder / "scores").read_text())
    assert tried == {
        "internet": "OSError", "host": "OSError", "/data/training": 404, "/data/anonymizer/training": 404,
        "/../plan.json": 404, "/utility": 405, "file": False,
    }  # fmt: skip
    assert "again 403 other 400" in run.log_path.read_text()


@pytest.mark.parametrize(
    ("extra", "reason", "said"),
    [
        ("raise SystemExit(3)", Reason.CRASHED, "exit status 3"),
        ("def fit():\n    os._exit(4)", Reason.CRASHED, "exit status 4"),
        ("def fit():\n    raise ValueError('no')", Reason.CRASHED, "POST /fit failed: no answer: "),
        ("def fit():\n    return 500", Reason.CRASHED, "A call to its server failed. POST /fit was answered by 500."),
        ("time.sleep(100)", Reason.CRASHED, "never ready"),
        ("def fit():\n    time.sleep(100)", Reason.TIMEOUT, "stopped after"),
        ("def fit():\n    held = [bytearray(b'x' * 2**20) for _ in range(400)]", Reason.OUT_OF_MEMORY, "256 MB"),
        ("def fit():\n    KEPT.write_bytes(bytes(11 * 2**20))", Reason.OUTPUT_TOO_LARGE, "8 MB were written to /pers"),
        ("def fit():\n    KEPT.write_bytes(bytes(20 * 2**20))", Reason.OUTPUT_TOO_LARGE, "8 MB were written to /pers"),
        ("def fit():\n    KEPT.symlink_to('/etc/shadow')", Reason.OUTPUT_INVALID, "/persistent_data has something"),
        ("held = socket.create_server(('127.0.0.1', 8001))", Reason.CRASHED, "port 80 only"),
    ],
    ids=[
        "ends", "ends in a call", "fails", "says that it failed", "never ready", "hangs", "memory", "too much kept",
        "disk full", "link kept", "port",
    ],
)  # fmt: skip
def test_comes_to_nothing(play, tmp_path, extra, reason, said):
    """Each way in which a server can fail is named, and leaves nothing running."""
    image = web_image(tmp_path / "bad", "bad", extra)
    run = play(image, FIT, FILES, folders=["model"], limits={"seconds": 6})
    assert (run.state, run.reason) == (Run.State.FAILED, reason), run.detail
    assert said in run.detail
    assert run.attempt == 1


def test_tells_how_a_failed_exchange_went(play, exchanges, tmp_path):
    """The table of routes is there when it is needed most; of one that was cut there is none."""
    image = web_image(tmp_path / "bad", "bad", "def fit():\n    return 500")
    run = play(image, FIT, FILES, folders=["model"])
    assert (run.state, run.reason) == (Run.State.FAILED, Reason.CRASHED)
    told = exchanges.verdict
    assert told["routes"]["POST /fit"] == 500
    assert told["calls"] == ["GET /", "POST /fit"]
    assert told["unasked"]
    image = web_image(tmp_path / "slow", "slow", "def fit():\n    time.sleep(100)")
    run = play(image, FIT, FILES, folders=["model"], limits={"seconds": 3})
    assert run.reason == Reason.TIMEOUT


def test_root_of_the_image(play, tmp_path):
    """Published images begin as root, hand files over and become somebody else."""
    extra = """
def fit():
    KEPT.write_bytes(b"fitted by")
    os.chown(KEPT, 33, 33)
    os.chown("/run", 33, 33)
    os.setgid(33), os.setuid(33)
    with KEPT.open("ab") as file:
        file.write(b" " + str(os.getuid()).encode())
"""
    image = web_image(tmp_path / "root", "root", extra, user="root")
    run = play(image, FIT, FILES, folders=["model"])
    assert run.state == Run.State.SUCCEEDED, run.detail
    assert (run.result_folder / "model.bin").read_text() == "fitted by 33"


def test_large_posts(play, tmp_path, settings):
    """What is posted costs the gateway no memory but that of /output, and more than that holds is refused."""
    settings.SANDBOX = {"retry_seconds": 0, "gateway_memory_mb": 96}
    extra = """
def fit():
    pathlib.Path("/run/nginx.pid").write_text("1")  # as whoever the image's user is
    refused = fetch(CHALLENGE + "/utility", bytes(170 * 2**20))[0]
    taken = fetch(CHALLENGE + "/utility", bytes(140 * 2**20))[0]
    KEPT.write_text(f"{refused} {taken}")
"""
    plan = {"record": {"/utility": {"to": "scores", "limit": 200 * 2**20}}, "calls": [{"post": "/fit"}]}
    image = web_image(tmp_path / "large", "large", extra)
    limits = {"output_mb": 150, "memory_mb": 512}
    run = play(image, plan, collect=["exchange.json", "scores"], folders=["model"], limits=limits)
    assert run.state == Run.State.SUCCEEDED, run.detail
    assert (run.result_folder / "model.bin").read_text() == "413 201"
    assert (run.result_folder / "scores").stat().st_size == 140 * 2**20


@contextmanager
def at_work(engine, run, count):
    """A worker in a process of its own, once the run has so many containers at work. It is killed in the end."""

    def running():
        return [one for one in engine.containers(**{RUN: str(run.pk)}) if one["State"] == "running"]

    connections.close_all()
    process = multiprocessing.get_context("fork").Process(target=worker.work)
    process.start()
    try:
        until(lambda: len(running()) == count, 60)
        yield process
    finally:
        process.kill()
        process.join()


def test_killed_worker(queue_exchange, exchanges, engine, tmp_path, settings):
    """Another worker removes both containers and begins again."""
    settings.SANDBOX = {"retry_seconds": 0, "lease_seconds": 3, "renew_seconds": 1}
    extra = """
def fit():
    data = fetch(CHALLENGE + "/data/training")[1]
    time.sleep(600 if data == b"slow" else 0)
    KEPT.write_bytes(data)
"""
    image = web_image(tmp_path / "slow", "slow", extra)
    run = queue_exchange(image, FIT, {"training.bin": b"slow"}, folders=["model"], limits={"seconds": 600})
    with at_work(engine, run, 2):
        pass
    reaper.sweep()  # leaves alone what might be taken over
    exchanges.files = FILES
    worker.work()
    run.refresh_from_db()
    assert (run.state, run.attempt, run.lost_leases) == (Run.State.SUCCEEDED, 2, 1), run.detail
    assert (run.result_folder / "model.bin").read_bytes() == b"patients"
    reaper.sweep()  # the working files of the one that was killed


def test_killed_amid_a_question(queue_exchange, exchanges, engine, make_image, tmp_path, settings):
    """Three containers of one run: all go, and the run is played from its beginning."""
    settings.SANDBOX = {"retry_seconds": 0, "lease_seconds": 3, "renew_seconds": 1}
    exchanges.answerer = by_files(make_image("/bin/busybox sleep 600"), seconds=600)
    image = web_image(tmp_path / "asking", "asking", ASKING.replace("ROWS", "[[[5, 6]]]"))
    files = {"answers.npz": pack(X=ROWS, prediction=np.array([7, 8]))}
    run = queue_exchange(image, ATTACK, files, collect=["exchange.json", "scores"], limits={"seconds": 600})
    with at_work(engine, run, 3):
        pass
    exchanges.answerer = by_files(make_image("/bin/busybox cat /input/rows.json > /output/said.json"))
    worker.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == (Run.State.SUCCEEDED, 2), run.detail
    assert json.loads((run.result_folder / "scores").read_text()) == [[11]]
    reaper.sweep()


def test_cancelled(queue_exchange, engine, tmp_path, settings):
    settings.SANDBOX = {"retry_seconds": 0, "renew_seconds": 0.2}
    image = web_image(tmp_path / "endless", "endless", "def fit():\n    time.sleep(600)")
    run = queue_exchange(image, FIT, FILES, limits={"seconds": 600})
    with at_work(engine, run, 2) as process:
        actions.cancel(run=run)
        process.join(60)
        assert process.exitcode == 0
    run.refresh_from_db()
    assert run.state == Run.State.CANCELLED
    assert not Slot.objects.exclude(run=None).exists()


def test_no_image_for_the_gateway(play, tmp_path):
    """That is no fault of the participant's."""
    image = web_image(tmp_path / "polite", "polite")
    Image.objects.filter(is_base=True).update(is_base=False)
    run = play(image, FIT, FILES)
    assert (run.state, run.reason) == (Run.State.FAILED, Reason.PLATFORM_FAULT)
    assert "no base image is registered" in run.detail


def test_unfit_image_for_the_gateway(play, make_image, tmp_path):
    """Three times, as any fault of the platform."""
    image = web_image(tmp_path / "polite", "polite")
    Image.objects.filter(is_base=True).update(is_base=False)
    Image.objects.filter(pk=make_image("true").pk).update(is_base=True)  # it has no python
    run = play(image, FIT, FILES)
    assert (run.state, run.reason) == (Run.State.FAILED, Reason.PLATFORM_FAULT)
    assert "the gateway ended with status 127" in run.detail
    assert run.attempt == 3


def test_not_in_gvisor(host, make_image):
    """There each container has a loopback of its own."""
    with pytest.raises(ValueError, match="gVisor"):
        actions.queue(
            image=make_image("true"), purpose="questions", step="fit", limits=LIMITS, collect={}, owner="ada",
            priority=0, private=True, walls=["gvisor"], contract=Contract.WEB,
        )  # fmt: skip
