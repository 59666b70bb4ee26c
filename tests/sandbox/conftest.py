"""A sandbox of its own for each test: a real engine, an installation id that nothing else uses, and polite purposes."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hostile_readers import read_answer
from image_builder import ImageBuilder, busybox_layer

from sandbox import actions, chambers, purposes, reaper, worker
from sandbox.conf import scratch_root
from sandbox.engine import Engine
from sandbox.hosts import LOCAL_HOST, engine_of
from sandbox.models import Host, Image, Run

LIMITS = {"seconds": 30, "memory_mb": 64, "cpus": 1, "output_mb": 8, "pids": 64}


@pytest.fixture(autouse=True)
def own_sandbox(settings: Any, tmp_path: Path) -> None:
    """Private files and labels that no other test, and no arena on this machine, can meet."""
    settings.PRIVATE_ROOT = tmp_path / "private"
    settings.INSTALLATION = uuid.uuid4().hex
    settings.SANDBOX = {"retry_seconds": 0}


class Questions:
    """A purpose like those of the rooms above: one input file, one answer to read, one entry per settled run."""

    def __init__(self) -> None:
        self.settled: list[tuple[Run, Any]] = []
        self.inputs: dict[str, bytes] = {}

    def write_inputs(self, run: Run, folder: Path) -> None:
        (folder / "task.json").write_text(json.dumps({"step": run.step}))
        (folder / "tables").mkdir()
        (folder / "tables" / "train.csv").write_text("age\n41\n")
        for name, content in self.inputs.items():
            (folder / name).write_bytes(content)

    def reader(self, run: Run, collected: Path, result: Path) -> Any:
        return read_answer, (str(collected), str(result))

    def question(self, run: Run) -> Any:
        return None

    def account(self, run: Run, told: Path) -> Any:
        return None

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> Any:
        return {**read, "canonical": (result / "answer.txt").read_text()}

    def settle(self, run: Run, verdict: Any) -> None:
        """As a step does that queues the next one: what is written here must be there exactly once per run."""
        self.settled.append((run, verdict))
        next_step(run)


def next_step(run: Run) -> Run:
    """A follower of a run, which no worker takes up during a test."""
    later = timezone.now() + timedelta(days=1)
    return Run.objects.create(purpose="questions", step="next", image=run.image, owner=str(run.pk), due_at=later)


@pytest.fixture
def questions() -> Iterator[Questions]:
    purpose = Questions()
    purposes.register("questions", purpose)
    yield purpose
    purposes.forget("questions")


@pytest.fixture
def engine(settings: Any) -> Iterator[Engine]:
    """The engine of this machine. Whatever carries this test's label is removed in the end."""
    engine = engine_of(Host(name=LOCAL_HOST, url=settings.DOCKER_HOST_URL))
    yield engine
    chambers.close()
    reaper.sweep_engine(engine, everything=True)
    client = engine._client
    for image in client.images(name=f"{engine.prefix}/*"):
        for tag in image["RepoTags"]:
            client.remove_image(tag, force=True)  # the engine may still be busy with taking a container away
    engine.hang_up()


@pytest.fixture
def host(transactional_db: None, engine: Engine, questions: Questions) -> Host:
    """This machine, with two slots."""
    return actions.ensure_local_host(slots=2)


@pytest.fixture
def make_image(transactional_db: None, tmp_path: Path) -> Callable[..., Image]:
    """An image that went through the check and runs a line of shell: `make_image("echo hello")`."""

    def make_image(script: str, **config: Any) -> Image:
        builder = ImageBuilder(layers=[busybox_layer()], config={"Entrypoint": ["/bin/sh", "-c", script], **config})
        archive = builder.docker_archive(tmp_path / f"{uuid.uuid4().hex}.tar")
        return actions.store_image(checked=actions.check_archive(archive=archive))

    return make_image


@pytest.fixture
def queue(host: Host, make_image: Callable[..., Image]) -> Callable[..., Run]:
    """Queues a run of a line of shell."""

    def queue(script: str | Image, **more: Any) -> Run:
        limits = LIMITS | more.pop("limits", {})
        image = script if isinstance(script, Image) else make_image(script)
        fields = {"collect": {"files": ["answer.txt"]}, "owner": "ada", "priority": 0, "private": True} | more
        return actions.queue(image=image, purpose="questions", step="attack", limits=limits, **fields)

    return queue


@pytest.fixture
def run(queue: Callable[..., Run]) -> Callable[..., Run]:
    """Queues a run of a line of shell, has a worker drive it, and returns it as it ended."""

    def run(script: str | Image, **more: Any) -> Run:
        queued = queue(script, **more)
        worker.work()
        queued.refresh_from_db()
        return queued

    return run


@pytest.fixture
def start_worker(engine: Engine, settings: Any) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts real worker processes on this test's database; those that still run in the end are killed."""
    processes = []
    here = Path(__file__).parent

    def start_worker() -> "subprocess.Popen[str]":
        given = {
            "path": [str(here.parent.parent), str(here)],
            "database": str(connection.settings_dict["NAME"]),
            "private_root": str(settings.PRIVATE_ROOT),
            "installation": settings.INSTALLATION,
            "sandbox": settings.SANDBOX,
            "once": True,
        }
        command = [sys.executable, str(here / "worker_process.py"), json.dumps(given)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start_worker
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def leaves_nothing(engine: Engine) -> Iterator[None]:
    """Afterwards there is no container, volume or working file left of any run."""
    yield
    chambers.close()
    assert engine.containers() == []
    assert engine.volumes() == []
    assert list(scratch_root().glob("*")) == []
