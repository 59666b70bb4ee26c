"""Exchanges on engines that break at a bad moment, and with folders that no engine here shows at will.

The engine's client is played here: that one stops listening just when it is told to stop a container cannot be had.
"""

import io
import queue
import tarfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.errors import APIError

from sandbox.contracts import Contract
from sandbox.engine import Chamber, Ending, Engine, EngineFault, Restarted, Unreachable
from sandbox.exchange import MOST_QUESTIONS, Exchange, _follow, _inside
from sandbox.limits import Limits
from sandbox.models import Image, Run
from sandbox.purposes import Question
from sandbox.reasons import Reason, Rejected

LIMITS = {"seconds": 600, "memory_mb": 256, "cpus": 1, "output_mb": 8, "pids": 64}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEFORE, LONG_AFTER = "2026-01-01T11:59:59Z", "2100-01-01T00:00:00Z"


def a_run(**more) -> Run:
    return Run(image=Image(image_id="sha256:0"), step="attack", limits=LIMITS, contract=Contract.WEB, **more)


def a_chamber(number: int) -> Chamber:
    return Chamber("holder", "holder", number, ("in", "out") * 2, 8, 0.0, "")


class DeafEngine:
    """Its containers run on: it neither stops them nor says how they are."""

    def lines(self, container):
        raise EngineFault("follow the container")

    def wait(self, container, seconds):
        time.sleep(0.05)
        return False

    def kill(self, container):
        raise Unreachable("stop the container")

    def hang_up(self):
        pass


def test_engine_that_hears_no_stop_holds_no_worker_up():
    """The run goes back at once: not after the exchange, which may take hours, has come to its own end."""

    def lost():
        raise Unreachable("the node is down")

    place = SimpleNamespace(engine=DeafEngine(), check=lost, check_seconds=0)
    exchange = Exchange(a_run(), _server="server", _gateway="gateway")
    began = time.monotonic()
    with pytest.raises(Unreachable):
        exchange._wait(place, SimpleNamespace(check=lambda: None), "gateway", 0)
    assert time.monotonic() - began < 10
    assert not [one for one in threading.enumerate() if "quietly" in one.name]


@pytest.mark.parametrize(
    "said",
    [
        "unable to find user anomed: no matching entries in passwd file",
        "unable to find group anomed: no matching entries in group file",
        "uids and gids must be in range 0-2147483647",
    ],
)
def test_user_that_the_image_lacks(said):
    """Servers run as their image's own user: a wrong one is no fault of the platform, to be tried three times."""

    def start(container):
        raise APIError("500 Server Error", explanation=said)

    engine = Engine("unix:///no/such/socket", "x")
    engine._local.client = SimpleNamespace(start=start)
    with pytest.raises(Rejected) as rejected:
        engine.start("server")
    assert rejected.value.reason == Reason.CRASHED


class Archives:
    """An engine's client that has archives of the folders of a holder, with these dates."""

    def __init__(self, **folders):
        self.folders = folders

    def get_archive(self, holder, path):
        date, files = self.folders[{"/0/output/.": "gateway", "/1/output/.": "server"}[path]]
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name in files:
                tar.addfile(tarfile.TarInfo(name))
        return Stream([content.getvalue()]), {"mtime": date}

    def inspect_container(self, container):
        return {"State": {"Running": True}}


class Stream(list):
    def close(self):
        pass


def collect(tmp_path: Path, **folders) -> list[str]:
    """What an exchange collects from a server that was to keep something; the folders' dates, their files."""
    engine = Engine("unix:///no/such/socket", "x")
    engine._local.client = Archives(**folders)
    run = a_run(collect={"files": ["exchange.json"], "folders": ["model"]})
    exchange = Exchange(run, asked=tmp_path / "1.npz", question=SimpleNamespace())
    exchange._chambers = [a_chamber(0), a_chamber(1)]
    (tmp_path / "1" / "output").mkdir(parents=True)
    exchange._collect(engine, Ending(0, False, 1.0, NOON))
    return sorted(path.name for path in (tmp_path / "1").rglob("*") if path.is_file())


def test_date_of_a_folder_that_the_image_owns(tmp_path):
    """Root in the image may date /persistent_data as it likes: that is no restart of the engine, to be tried again."""
    kept = collect(tmp_path, server=(LONG_AFTER, ["model.bin"]), gateway=(BEFORE, ["exchange.json"]))
    assert kept == ["exchange.json", "model.bin"]


def test_engine_that_has_lost_both_folders(tmp_path):
    with pytest.raises(Restarted):
        collect(tmp_path, server=(LONG_AFTER, []), gateway=(LONG_AFTER, []))


def test_question_leaves_time_to_the_attack():
    """What answers may take half of the time left, however long its own limit: the attack can go on without it."""
    question = Question(Image(image_id="sha256:1"), "predict", Contract.FILES, LIMITS, {"files": []}, None, None)
    assert _inside(a_run(), question, Path("1.npz"), left=100.5).run.wants.seconds == 51
    assert _inside(a_run(), question, Path("1.npz"), left=5000).run.wants == Limits.from_json(LIMITS)


def test_gateway_that_says_anything():
    """Only questions in turn are passed on, each once, though the line is cut and picked up again."""
    asked = queue.Queue()
    said = ["", "ask 2", "ask 1", "ask 1", "ask 02", *(f"ask {number}" for number in range(2, 1000))]
    cut = iter([False, True])
    engine = SimpleNamespace(lines=lambda container: iter(said), wait=lambda container, seconds: next(cut))
    _follow(engine, "gateway", asked, threading.Event())
    assert [asked.get() for _one in range(asked.qsize())] == [*range(1, MOST_QUESTIONS + 1), None]
