"""Steps of web images, played by the real sandbox on boards of a test's own: no site, no upload, no other entries."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from challenges.scenarios import registry
from challenges.scenarios.base import Board, Images
from sandbox import actions, chambers, purposes, reaper, worker
from sandbox.conf import conf
from sandbox.engine import Engine
from sandbox.hosts import LOCAL_HOST, engine_of
from sandbox.models import Host, Image, Run
from sandbox.purposes import Question, Reader
from submissions import reading

FILES, WEB = "anomed/1", "web/1"
LIMITS = {"seconds": 100, "memory_mb": 1024, "cpus": 1, "output_mb": 64, "pids": 256}


def known(name: str, **fields: Any) -> Image:
    """The row of an image that the engine has already."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    image_id = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return Image.objects.get_or_create(image_id=image_id, defaults={"name": name, **fields})[0]


class Table:
    """Where games are played: the purpose of all runs of a test."""

    def __init__(self) -> None:
        self.board: Board
        self.images: Images

    def play(self, image: str, step: str, board: Board, contract: str = WEB) -> Run:
        """One step of an image on the engine, over when this returns."""
        self.board, self.images = board, registry.get(board.game.scenario).images(contract)
        run = actions.queue(
            image=known(image), purpose="table", step=step, limits=LIMITS, collect=self.images.collect(step),
            owner="ada", priority=0, private=True, contract=contract,
        )  # fmt: skip
        worker.work()
        run.refresh_from_db()
        return run

    def result(self, image: str, step: str, board: Board, contract: str = WEB) -> Path:
        """The folder of the canonical result of a step that goes well."""
        run = self.play(image, step, board, contract)
        assert run.state == Run.State.SUCCEEDED, (
            f"{image}, {step}: {run.reason} {run.detail}\n{run.log_path.read_text()}"
        )
        return run.result_folder

    def write_inputs(self, run: Run, folder: Path) -> None:
        self.images.write_inputs(run.step, self.board, folder)

    def reader(self, run: Run, collected: Path, result: Path) -> Reader:
        return reading.read, (self.board.game.scenario, run.contract, run.step, self.board, collected, result)

    def question(self, run: Run) -> Question | None:
        return None

    def account(self, run: Run, told: Path) -> Reader | None:
        return None

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> dict[str, Any]:
        return read

    def settle(self, run: Run, verdict: Any) -> None:
        pass


def _log(run: Run) -> str:
    return run.log_path.read_text() if run.log_path.exists() else "(no log)"


@contextmanager
def table(settings: Any, private: Path) -> Iterator[Table]:
    """A sandbox of its own, which leaves nothing. `anomed/base` is where its gateways run."""
    settings.PRIVATE_ROOT, settings.INSTALLATION = private, uuid.uuid4().hex
    settings.SANDBOX = {"retry_seconds": 0}
    actions.ensure_local_host(slots=1)
    known(conf().gateway_image or "anomed/base", is_base=True)
    made = Table()
    purposes.register("table", made)
    engine: Engine = engine_of(Host(name=LOCAL_HOST, url=settings.DOCKER_HOST_URL))
    try:
        yield made
    finally:
        purposes.forget("table")
        chambers.close()
        reaper.sweep_engine(engine, everything=True)
        engine.hang_up()
