"""The sandbox without the arena around it: one run of one image at a time, for the mutation run."""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import docker
import pyarrow as pa
from django.core.management import call_command

from challenges import tables
from sandbox import actions, chambers, purposes, reaper, worker
from sandbox.engine import Engine
from sandbox.models import Image, Run
from sandbox.reasons import Reason
from tests.hostile import archives
from tests.hostile.cases import CASES
from tests.hostile.ears import Ears
from tests.hostile.model import SCORED, Case, Outcome, Seen, judge
from tests.hostile.reading import TOKENS, read
from tests.hostile.stage import LIMITS

PURPOSE = "hostile"
MOST_LOG = 2_200_000  # bytes on the engine's disk: two files of 1 MB, and what was being written

# Refused by the check of its archive before it comes to this; here it is loaded past the check.
HEALTHCHECK = Case(
    "healthcheck-runs",
    "archives",
    "A HEALTHCHECK that an engine runs beside the program.",
    "The platform asks for none.",
    program="import time\ntime.sleep(2.5)\nequal('it ran', os.path.exists('/tmp/ran'), False)\npolite()",
    config={"Healthcheck": {"Test": ["CMD", "touch", "/tmp/ran"], "Interval": 10**9}},
    walls=("healthcheck",),
)


class Hostile:
    """A purpose whose inputs look like an attack's, and whose outputs are read as an attack's are."""

    def write_inputs(self, run: Run, folder: Path) -> None:
        task = {"step": run.step, "limits": run.limits, "seed": 0, "files": {"candidates": "candidates.parquet"}}
        (folder / "task.json").write_text(json.dumps({**task, "contract": "anomed/1"}))
        table = pa.table({"row": TOKENS, "glucose": [100.0] * len(TOKENS)})
        tables.write_arrow(table, folder / "candidates.parquet")

    def reader(self, run: Run, collected: Path, result: Path) -> Any:
        return read, (collected,)

    def question(self, run: Run) -> Any:
        return None

    def account(self, run: Run, told: Path) -> Any:
        return None

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> Any:
        return read

    def settle(self, run: Run, verdict: Any) -> None:
        """Nothing follows."""


class NotJudged(Exception):
    """The run came to nothing by the platform's own fault, so that the case has shown nothing."""


class Bench:
    """A sandbox with a database, a base image and one slot of its own. Use as a context manager."""

    def __init__(self, ears: Ears) -> None:
        self.ears = ears
        self.base = archives.Base.from_engine()
        self.folder = Path(tempfile.mkdtemp(prefix="anomed-bench-"))
        self._log_bytes = 0
        self._images: dict[str, Image] = {}

    def __enter__(self) -> Self:
        call_command("migrate", verbosity=0)
        purposes.register(PURPOSE, Hostile())
        self.host = actions.ensure_local_host(slots=1)
        archive = self.folder / "base.tar"
        subprocess.run(["docker", "save", "--output", str(archive), archives.BASE], check=True)
        actions.register_base_image(archive=archive, name=archives.BASE)
        archive.unlink()
        self._ending = Engine.ending
        Engine.ending = self._watched(Engine.ending)  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Engine.ending = self._ending  # type: ignore[method-assign]
        chambers.close()
        reaper.remove_everything()
        engine = docker.from_env()
        for image in self._images.values():
            for tag in self._tags(engine, image.image_id):
                with contextlib.suppress(docker.errors.APIError):
                    engine.images.remove(tag)
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)

    def _tags(self, engine: Any, image_id: str) -> list[str]:
        with contextlib.suppress(docker.errors.ImageNotFound):
            return [*engine.images.get(image_id).tags, image_id]
        return []

    def _watched(self, honest: Any) -> Any:
        """Also looks how much the engine keeps of the container's log: only its own disk tells."""

        def ending(engine: Engine, container: str) -> Any:
            path = engine._client.inspect_container(container)["LogPath"]
            self._log_bytes = sum(file.stat().st_size for file in Path(path).parent.glob("*.log*")) if path else 0
            return honest(engine, container)

        return ending

    def cases_for(self, wall: str) -> list[Case]:
        """Those that say that they notice its absence."""
        return [case for case in (*CASES, HEALTHCHECK) if wall in case.walls]

    def complaints(self, case: Case) -> list[str]:
        """Runs it once, as it was entered, and judges as the arena's play does; twice where it looks for marks.

        Raises NotJudged.
        """
        found: list[str] = []
        for _ in range(2 if case.id == "marks" else 1):
            found = self._run(case)
        return found

    def _run(self, case: Case) -> list[str]:
        run = actions.queue(
            image=self._image(case),
            purpose=PURPOSE,
            step="attack",
            limits=LIMITS,
            collect={"tables": ["scores"]},
            owner="mallory",
            priority=0,
            private=False,
        )
        worker.work()
        run.refresh_from_db()
        if run.state not in Run.ENDED or run.reason == Reason.PLATFORM_FAULT:
            state, detail = run.state, run.detail
            Run.objects.filter(pk=run.pk).delete()  # else the next case's worker would take it up again
            raise NotJudged(f"{state}: {detail}")
        seen = Seen(self._outcome(case, run))
        if run.log_path.exists():
            seen.logs["run"] = run.log_path.read_text(errors="replace")
        complaints = judge(case, seen, "runc")
        if self._log_bytes > MOST_LOG:
            complaints.append(f"the engine keeps {self._log_bytes} bytes of log")
        return complaints

    def _outcome(self, case: Case, run: Run) -> Outcome:
        if not run.reason:
            return SCORED if run.state == Run.State.SUCCEEDED else Outcome(run.state)
        if any(one.cause for one in case.expects("runc")):
            return Outcome("failed", "rehearsal_failed", run.reason, run.detail)
        return Outcome("failed", run.reason, says=run.detail)

    def _image(self, case: Case) -> Image:
        if case.id not in self._images:
            made = archives.image(
                self.base, case.id, case.program, self.ears.targets, config=case.config, files=case.files
            )
            path = made.docker_archive(self.folder / f"{case.id}.tar")
            if case is HEALTHCHECK:
                docker.from_env().images.load(path.read_bytes())
                self._images[case.id] = Image.objects.create(image_id=made.image_id, layers=[], size=1)
            else:
                self._images[case.id] = actions.store_image(checked=actions.check_archive(archive=path))
        return self._images[case.id]
