"""One performance: every case in one runtime, polite entries in between, and what must hold when the curtain falls."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.arena import wait_for
from tests.hostile import archives
from tests.hostile.ears import Ears
from tests.hostile.model import Case, Seen
from tests.hostile.stage import ATTACKS, POLITE, POLLY, Entry, Stage, processes

POLITE_EVERY = 12
WALLS = {"runc": "", "gvisor": "gvisor"}


@dataclass
class Performance:
    """What was seen: of each case by its id, and of the arena as a whole."""

    runtime: str
    seen: dict[str, Seen] = field(default_factory=dict)
    aftermath: dict[str, str] = field(default_factory=dict)  # what must hold afterwards -> why it does not, or ""
    seconds: float = 0.0

    @property
    def failures(self) -> int:
        return sum(not seen.held for seen in self.seen.values()) + sum(map(bool, self.aftermath.values()))


def play(stage: Stage, ears: Ears, runtime: str, cases: list[Case], tell: Callable[[str], None]) -> Performance:
    """Enters all cases at once and lets the slots work."""
    begun = time.monotonic()
    ears.forget()
    done = Performance(runtime)
    entries, polite = [], [_polite(stage, 0)]
    stage.wait(polite, seconds=60)
    workers = processes(stage.arena)
    tags = _tags()
    for number, case in enumerate(cases):
        if number % POLITE_EVERY == POLITE_EVERY - 1:
            polite.append(_polite(stage, number))
        entries.append(stage.enter(case, archive_of(stage, ears, case)))
    tell(f"{runtime}: {len(entries)} cases are entered")
    stage.wait(entries, seconds=900, progress=_Progress(runtime, tell))
    polite.append(_polite(stage, len(cases)))
    stage.wait(polite, seconds=120)
    for entry in entries:
        done.seen[entry.case.id] = stage.observe(entry, runtime)
    done.aftermath = _aftermath(stage, ears, polite, workers, tags)
    done.seconds = time.monotonic() - begun
    return done


def archive_of(stage: Stage, ears: Ears, case: Case) -> Path:
    """The file that is uploaded for a case."""
    folder = stage.arena.var / "archives"
    folder.mkdir(exist_ok=True)
    path = folder / f"{case.id}.tar"
    if case.archive is not None:
        return case.archive(path, stage.base)
    made = archives.image(stage.base, case.id, case.program, ears.targets, config=case.config, files=case.files)
    return made.docker_archive(path)


def _polite(stage: Stage, number: int) -> Entry:
    case = Case(f"polite-{number}", "", "", "")
    path = stage.arena.var / "polite.tar"
    archives.image(stage.base, case.id, POLITE, {}).docker_archive(path)
    return stage.enter(case, path, email=POLLY, challenge=ATTACKS)


class _Progress:
    def __init__(self, runtime: str, tell: Callable[[str], None]) -> None:
        self.runtime, self.tell, self.next = runtime, tell, 0

    def __call__(self, done: int, total: int) -> None:
        if done >= self.next:
            self.tell(f"{self.runtime}: {done} of {total} are over")
            self.next = done + 15


def _aftermath(
    stage: Stage, ears: Ears, polite: list[Entry], workers: dict[int, str], tags: dict[str, str]
) -> dict[str, str]:
    """What must hold after all of it: sentence -> why it does not, or nothing."""
    found: dict[str, str] = {}
    heard = ears.all_heard()
    found["nothing was reached: no listener of host or neighbour heard anybody"] = "; ".join(heard)
    states = {entry.case.id: entry.facts.get("state") for entry in polite}
    found["every polite entry in between was scored"] = str({k: v for k, v in states.items() if v != "scored"} or "")
    leaks = {stage.leak(entry) for entry in polite}
    found["all polite entries got the same numbers"] = (
        "" if len(leaks) == 1 and None not in leaks else str(leaks)
    )  # the same deal, whatever ran in between
    now = processes(stage.arena)
    found["the worker processes are the same as before"] = "" if now == workers else f"{workers} became {now}"
    found["no tag of the engine was moved"] = str({k: v for k, v in tags.items() if _tags().get(k) != v} or "")
    found["no container of a run is left"] = _gone(lambda: stage.leftovers()["containers"])
    found["no working file, upload or half-checked archive is left"] = _gone(stage.scratch)
    return found


def _gone(left: Callable[[], list[str]]) -> str:
    """Removal goes on beside the workers' next runs, and blind controls of attacks come when all else is over."""
    try:
        wait_for(lambda: not left(), seconds=300, what="all is removed")
    except AssertionError:
        return ", ".join(left()[:5])
    return ""


def _tags() -> dict[str, str]:
    """The names that kits and bases have on the engine, which archives may try to take."""
    import docker

    images: list[Any] = docker.from_env().api.images()
    return {tag: image["Id"] for image in images for tag in image["RepoTags"] or () if tag.startswith("anomed/")}


def curtain(stage: Stage) -> dict[str, str]:
    """Once the arena has stopped: not a container, not a volume of it is left."""
    left = stage.leftovers()
    return {
        "no container of the stopped arena is left": ", ".join(left["all containers"]),
        "no volume of the stopped arena is left": ", ".join(left["all volumes"]),
    }
