"""What the benchmarks share: a verdict, an arena in a folder of its own, and a challenge with many entries."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.arena import ORGANISER, Arena, patients, write_challenge


@dataclass(frozen=True)
class Verdict:
    """A measured ratio against the line that it has to meet; without a line it is for information."""

    what: str
    ratio: float
    at_most: float | None = None

    @property
    def met(self) -> bool:
        return self.at_most is None or self.ratio <= self.at_most

    def __str__(self) -> str:
        if self.at_most is None:
            return f"       {self.what}: {self.ratio:.2f} (no line to meet)"
        return f"{'met   ' if self.met else 'MISSED'} {self.what}: {self.ratio:.2f} (at most {self.at_most})"


@contextmanager
def arena(*, serve: bool = True, folder: Path | None = None, **settings: str) -> Iterator[Arena]:
    """An arena with the challenge `clinic`, in that folder if any; all that it wrote goes with it."""
    folder = folder or Path(tempfile.mkdtemp(prefix="anomed-benchmark-"))
    made = Arena(var=folder, settings=settings)
    made.manage("migrate", "--verbosity", "0")
    made.manage("collectstatic", "--no-input", "--verbosity", "0")
    made.manage("createsuperuser", "--no-input", "--email", ORGANISER)
    challenge = write_challenge(folder / "clinic", patients(800))
    made.manage("challenge_import", str(challenge), "--organiser", ORGANISER, "--publish")
    try:
        if serve:
            made.serve()
        yield made
    finally:
        made.stop()
        made.manage("sandbox_clean")  # of the benchmarks that play the worker themselves
        shutil.rmtree(folder, ignore_errors=True)


def inside(arena: Arena, script: str, *arguments: str) -> str:
    """The output of a function `main` of a benchmark module, run with the arena's database and files."""
    code = f"import django; django.setup(); from benchmarks import {script} as it; it.inside(*{list(arguments)!r})"
    environment = {**arena.environment, "DJANGO_SETTINGS_MODULE": "anomed_site.settings"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def image_id(name: str) -> str:
    """The id of an image on the engine."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
