"""Runs of images that are web servers: a real gateway talks to real containers, and nothing is left of either."""

import io
import json
import multiprocessing
import time

import docker
import numpy as np
import pytest
from django.db import connections
from web_readers import keep_all, read_answer, write_question
from web_servers import known, web_image

from sandbox import actions, purposes, reaper, worker
from sandbox.contracts import Contract
from sandbox.engine import RUN
from sandbox.models import Run
from sandbox.purposes import Question
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

    def judge(self, run, result, read):
        self.read = read

    def settle(self, run, verdict):
        pass


@pytest.fixture
def exchanges(host):
    known("anomed/base", is_base=True)
    purpose = Exchanges()
    purposes.register("exchanges", purpose)
    yield purpose
    purposes.forget("exchanges")


@pytest.fixture
def play(exchanges):
    """Drives one exchange to its end and returns its run."""

    def play(image, plan, files=None, *, collect=("exchange.json",), folders=(), limits=None):
        exchanges.plan, exchanges.files = plan, files or {}
        run = actions.queue(
            image=image, purpose="exchanges", step="fit", limits=LIMITS | (limits or {}), owner="ada", priority=0,
            collect={"files": list(collect), "folders": list(folders)}, private=True, contract=Contract.WEB,
        )  # fmt: skip
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
    fitted = play(image, FIT, {"training.bin": b"patients"}, folders=["model"])
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


def test_live_questions(play, exchanges, make_image, tmp_path):
    """Rows that no table holds are asked of the defense's own image, one container for each question."""
    answering = make_image("/bin/busybox cat /input/rows.json > /output/said.json")
    exchanges.answerer = Question(
        image=answering,
        step="predict",
        contract=Contract.FILES,
        limits=LIMITS,
        collect={"files": ["said.json"]},
        write=lambda asked, folder: (write_question, (str(asked), str(folder))),
        read=lambda asked, collected, answer: (read_answer, (str(collected), str(answer))),
    )
    rows = [[[1.0, 2.0], [5.0, 6.0]], [[-1.0, 0.0]], [[3.0, 3.0]], [[1.0, 2.0]] * 7]
    image = web_image(tmp_path / "asking", "asking", ASKING.replace("ROWS", json.dumps(rows)))
    files = {"answers.npz": pack(X=ROWS, prediction=np.array([7, 8]))}
    run = play(image, ATTACK, files, collect=["exchange.json", "scores"])
    assert run.state == Run.State.SUCCEEDED, run.detail
    # known and new rows together; refused; new; more than the budget's rest
    assert json.loads((run.result_folder / "scores").read_text()) == [[8, 11], 422, [6], 429]
    assert (exchanges.read["queries"], exchanges.read["live"]) == (4, 2)


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
        ("def fit():\n    raise ValueError('no')", Reason.CRASHED, "A call to its server failed"),
        ("time.sleep(100)", Reason.CRASHED, "never answered"),
        ("def fit():\n    time.sleep(100)", Reason.TIMEOUT, "stopped after"),
        ("def fit():\n    held = [bytearray(b'x' * 2**20) for _ in range(400)]", Reason.OUT_OF_MEMORY, "256 MB"),
        ("def fit():\n    KEPT.write_bytes(bytes(11 * 2**20))", Reason.OUTPUT_TOO_LARGE, "8 MB"),
        ("def fit():\n    KEPT.symlink_to('/etc/shadow')", Reason.OUTPUT_INVALID, "link"),
        ("held = socket.create_server(('127.0.0.1', 8001))", Reason.CRASHED, "port 80 only"),
    ],
    ids=["ends", "ends in a call", "fails", "never ready", "hangs", "memory", "too much kept", "link kept", "port"],
)
def test_comes_to_nothing(play, tmp_path, extra, reason, said):
    """Each way in which a server can fail is named, and leaves nothing running."""
    image = web_image(tmp_path / "bad", "bad", extra)
    run = play(image, FIT, {"training.bin": b"patients"}, folders=["model"], limits={"seconds": 6})
    assert (run.state, run.reason) == (Run.State.FAILED, reason), run.detail
    assert said in run.detail
    assert run.attempt == 1


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
    folder = tmp_path / "root"
    web_image(folder, "root", extra)
    dockerfile = (folder / "Dockerfile").read_text()
    (folder / "Dockerfile").write_text(dockerfile + "USER root\n")
    docker.from_env().images.build(path=str(folder), tag="anomed-test/web-root", rm=True)
    run = play(known("anomed-test/web-root"), FIT, {"training.bin": b"patients"}, folders=["model"])
    assert run.state == Run.State.SUCCEEDED, run.detail
    assert (run.result_folder / "model.bin").read_text() == "fitted by 33"


def test_large_posts(play, tmp_path, settings):
    """What is posted costs the gateway no memory but that of /output, and more than that holds is refused."""
    settings.SANDBOX = {"retry_seconds": 0, "gateway_memory_mb": 96}
    extra = """
def fit():
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


def test_killed_worker(exchanges, engine, start_worker, tmp_path, settings):
    """Another worker removes both containers and begins again."""
    settings.SANDBOX = {"retry_seconds": 0, "lease_seconds": 3, "renew_seconds": 1}
    image = web_image(tmp_path / "slow", "slow", "def fit():\n    time.sleep(3)\n    KEPT.write_bytes(b'done')")
    exchanges.plan, exchanges.files = FIT, {"training.bin": b"patients"}
    run = actions.queue(
        image=image, purpose="exchanges", step="fit", limits=LIMITS, owner="ada", priority=0,
        collect={"files": ["exchange.json"], "folders": ["model"]}, private=True, contract=Contract.WEB,
    )  # fmt: skip
    connections.close_all()
    process = multiprocessing.get_context("fork").Process(target=worker.work)
    process.start()
    deadline = time.monotonic() + 20
    while len(engine.containers(**{RUN: str(run.pk)})) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.join()
    worker.work()
    run.refresh_from_db()
    assert (run.state, run.attempt) == (Run.State.SUCCEEDED, 2), run.detail
    reaper.sweep()  # the working files of the one that was killed


def test_not_in_gvisor(host, make_image):
    """There each container has a loopback of its own."""
    with pytest.raises(ValueError, match="gVisor"):
        actions.queue(
            image=make_image("true"), purpose="questions", step="fit", limits=LIMITS, collect={}, owner="ada",
            priority=0, private=True, walls=["gvisor"], contract=Contract.WEB,
        )  # fmt: skip
