"""Two workers race for one GPU, 10,000 times, on SQLite and PostgreSQL: each time exactly one of them gets it."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.common import Verdict
from tests.databases import postgres, postgres_programs

TRIES = 10_000
WORKERS = 2
PATIENCE = 120  # seconds that a worker waits for the other: it has died then

_SCRIPT = """
import sys
import django
django.setup()
from benchmarks import gpu_race
gpu_race.inside(int(sys.argv[1]))
"""


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    facts = {name: race(url, TRIES) for name, url in _databases()}
    return facts, [
        Verdict(f"tries without exactly one winner, of {TRIES} on {name}", found["wrong"], 0)
        for name, found in facts.items()
    ]


def _databases() -> Iterator[tuple[str, str]]:
    """SQLite, and a PostgreSQL of its own where that is installed. Never that of DATABASE_URL: runs are deleted."""
    yield "sqlite", ""
    if postgres_programs() is not None:
        with postgres() as url:
            yield "postgresql", url


def race(url: str, tries: int) -> dict[str, Any]:
    """So many tries on the database at that address, which may be new; on a new SQLite without one."""
    with _environment(url) as environment:
        for command in (["manage.py", "migrate", "--verbosity", "0"], ["-c", _SCRIPT, str(tries)]):
            done = subprocess.run(
                [sys.executable, *command],
                cwd=Path(__file__).parent.parent,
                env=environment,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(done.stdout + done.stderr)
    return dict(json.loads(done.stdout))


@contextmanager
def _environment(url: str) -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="anomed-race-"))
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "anomed_site.settings", "ANOMED_VAR": str(folder)}
    environment.pop("DATABASE_URL", None)
    try:
        yield environment | ({"DATABASE_URL": url} if url else {})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def inside(tries: int) -> None:
    """Prepares the stage, lets the workers race on it, and prints who won how often."""
    from django.db import connection

    _set_up()
    connection.close()
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(WORKERS)
    answers = fork.Queue()
    workers = [fork.Process(target=_worker, args=(number, tries, barrier, answers)) for number in range(WORKERS)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    told = [answers.get() for _ in workers]
    took = time.monotonic() - began
    for worker in workers:
        worker.join()
    if None in told:
        raise RuntimeError("A worker has failed.")
    wins, spans = zip(*(answer[1:] for answer in sorted(told)), strict=True)
    # at the same time: each began before the other had ended
    met = sum(max(begun for begun, _ in both) < min(ended for _, ended in both) for both in zip(*spans, strict=True))
    facts = {
        "tries": tries,
        "wins": [sum(won) for won in wins],
        "at_the_same_time": met,
        "both": sum(sum(won) > 1 for won in zip(*wins, strict=True)),
        "none": sum(sum(won) == 0 for won in zip(*wins, strict=True)),
        "tries_per_second": round(tries / took, 1),
    }
    facts["wrong"] = facts["both"] + facts["none"]
    sys.stdout.write(json.dumps(facts))


def _set_up() -> None:
    """One host with a slot for each worker and one GPU for all of them; a run for each that wants it."""
    from sandbox.models import Gpu, Host, Image, Run, Slot
    from sandbox.offers import STANDARD

    Run.objects.all().delete()
    Host.objects.all().delete()
    host = Host.objects.create(name="race", url="unix:///race", walls=[STANDARD])
    Gpu.objects.create(host=host, uuid="GPU-race", memory_mb=16000)
    Slot.objects.bulk_create(Slot(host=host, number=number) for number in range(1, WORKERS + 1))
    image, _created = Image.objects.get_or_create(image_id="sha256:" + "0" * 64)
    limits = {"gpus": 1, "gpu_memory_mb": 8000}
    for owner in range(WORKERS):
        Run.objects.create(purpose="race", step="race", image=image, owner=str(owner), gpus=1, limits=limits)


def _worker(number: int, tries: int, barrier: Barrier, answers: Any) -> None:
    """Claims once in each try; the first worker then clears the stage for the next."""
    from sandbox import leases
    from sandbox.models import Gpu

    wins: list[int] = []
    spans: list[tuple[float, float]] = []
    try:
        for _ in range(tries):
            barrier.wait(PATIENCE)
            began = time.monotonic()
            run = leases.claim(f"worker {number}")
            spans.append((began, time.monotonic()))
            # who has the lease of the run but not the GPU has not won
            wins.append(int(run is not None and Gpu.objects.filter(run=run).exists()))
            barrier.wait(PATIENCE)
            if number == 0:
                _again()
        answers.put((number, wins, spans))
    except BaseException:
        barrier.abort()  # the other need not wait
        answers.put(None)
        raise


def _again() -> None:
    """As if every run had been given back: all wait, and everything is free."""
    from django.db import transaction

    from sandbox.models import Gpu, Run, Slot

    with transaction.atomic():
        Gpu.objects.update(run=None)
        Slot.objects.update(run=None)
        Run.objects.update(state=Run.State.QUEUED, lease_until=None, host=None)
