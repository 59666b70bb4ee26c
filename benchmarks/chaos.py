"""A matrix of duels while workers, sentinels, site and engine are killed and the disk fills: SQLite, one host.

First calm, then with SIGKILLs at random. At the end each duel has exactly one result, nothing is left, and it took at
most half as long again. The environment may change the size: CHAOS_SIDE (10 attacks x 10 defenses), CHAOS_KILLS (100),
CHAOS_SECONDS (8) of each container, CHAOS_SLOTS (4), CHAOS_SEED (1). Needs root: engines in network namespaces, a small
disk mounted from a file.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import Verdict, arena, image_id
from benchmarks.common import inside as run_inside
from tests.arena import Arena, build
from tests.databases import Postgres
from tests.engines import SpareEngine

SIDE = int(os.environ.get("CHAOS_SIDE", "10"))
KILLS = int(os.environ.get("CHAOS_KILLS", "100"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "8"))
SLOTS = int(os.environ.get("CHAOS_SLOTS", "4"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))

AT_MOST = 1.5
DISK_MB = 1500  # the health check wants more than a gigabyte free
FULL_SECONDS = 5
SETTLING_SECONDS = 150  # after the last duel: two of the reaper's rounds
FIRST_NUMBER = 70  # of the engines' addresses

SLEEP = """
import time
from pyarrow import parquet, table

rows = parquet.read_table("/input/candidates.parquet", columns=["row"])
time.sleep({seconds})
parquet.write_table(table({{"row": rows["row"], "score": [0.0] * len(rows)}}), "/output/scores.parquet")
"""


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    return run(hosts=1, database=None)


def run(*, hosts: int, database: Postgres | None) -> tuple[dict[str, Any], list[Verdict]]:
    """The matrix on so many engines of its own, `SLOTS` slots in all, calm and then not."""
    with contextlib.ExitStack() as stack:
        engines = [
            stack.enter_context(SpareEngine(f"chaos{number}", FIRST_NUMBER + number)) for number in range(1, hosts + 1)
        ]
        disk = stack.enter_context(small_disk())
        program = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        build(program, "anomed-test/chaos", SLEEP.format(seconds=SECONDS))
        for engine in engines:
            engine.receive("anomed-test/chaos")
        settings = {
            "ANOMED_RUN_SLOTS": str(SLOTS if hosts == 1 else 1),  # further hosts bring their own workers
            "ANOMED_DOCKER_HOST": engines[0].url,
            "ANOMED_LEASE_SECONDS": "30",
        }
        if database is not None:
            settings["DATABASE_URL"] = stack.enter_context(database).url
        made = stack.enter_context(arena(folder=disk, **settings))
        run_inside(made, "chaos", "prepare", json.dumps([engine.url for engine in engines]))
        calm = _matrix(made, "calm")
        chaos = Chaos(made, engines, database, calm["seconds"])
        with chaos:
            wild = _matrix(made, "wild")
        leftovers = _settle(made, engines)
    wrong = sum(abs(part[what] - SIDE * SIDE) for part in (calm, wild) for what in ("done", "settled", "succeeded"))
    for kind, count in sorted(chaos.done.items()):
        print(f"   killed {count:4d} x {kind}", flush=True)
    facts = {
        "calm_seconds": calm["seconds"],
        "chaos_seconds": wild["seconds"],
        "kills": sum(count for kind, count in chaos.done.items() if kind != "disk full"),
        "by_kind": dict(chaos.done),
        "leases_lost": wild["lost_leases"],
        "faults": wild["faults"],
        "attempts": wild["attempts"],
        "results": {what: wild[what] for what in ("done", "settled", "succeeded")},
        "leftovers": leftovers,
    }
    return facts, [
        Verdict(f"{SIDE} x {SIDE} duels, {facts['kills']} kills / calm", wild["seconds"] / calm["seconds"], AT_MOST),
        Verdict("duels without exactly one result", wrong, 0),
        Verdict("kills that found no victim", KILLS - facts["kills"], 0),
        Verdict("containers, volumes, networks, files, processes, slots left", sum(leftovers.values()), 0),
    ]


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a disk of its own, made of a sparse file, so that it can be filled without harm."""
    with tempfile.TemporaryDirectory(prefix="anomed-chaos-") as folder:
        image, mounted = Path(folder, "disk"), Path(folder, "mounted")
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(DISK_MB << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
        try:
            var = mounted / "var"
            var.mkdir()
            yield var
        finally:
            subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def _matrix(made: Arena, name: str) -> dict[str, Any]:
    return dict(json.loads(run_inside(made, "chaos", "matrix", name, image_id("anomed-test/chaos"), str(SIDE))))


# -- the killing


@dataclass
class Chaos:
    """Kills at random moments, in a thread, for as long as the `with` block lasts."""

    made: Arena
    engines: list[SpareEngine]
    database: Postgres | None
    calm: float
    done: "Counter[str]" = field(default_factory=Counter)

    def __enter__(self) -> "Chaos":
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._rage)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _rage(self) -> None:
        dice = random.Random(SEED)
        rare = max(1, KILLS // 20)
        kinds = ["engine"] * rare + ["site"] * (2 * rare) + ["sentinel"] * (2 * rare)
        kinds += ["database"] * rare if self.database else []
        kinds += ["worker"] * (KILLS - len(kinds)) + ["disk full"]
        dice.shuffle(kinds)
        moments = sorted(dice.uniform(0.02, 0.9) * self.calm for _ in kinds)
        began = time.monotonic()
        for moment, kind in zip(moments, kinds, strict=True):
            self._over.wait(max(0.0, began + moment - time.monotonic()))
            while not self._over.is_set() and not self._kill(kind, dice):
                time.sleep(0.3)  # what was to be killed is just coming back

    def _kill(self, kind: str, dice: random.Random) -> bool:
        victims = {"worker": self._workers, "sentinel": self._sentinels, "site": self._sites}
        if kind in victims:
            found = victims[kind]()
            if not found:
                return False
            try:
                os.kill(dice.choice(found), signal.SIGKILL)
            except ProcessLookupError:
                return False
        elif kind == "engine":
            engine = dice.choice(self.engines)
            engine.kill()
            _insisting(engine.start)
        elif kind == "database" and self.database is not None:
            self.database.kill()
            _insisting(self.database.start)
        elif kind == "disk full":
            self._fill()
        self.done[kind] += 1
        return True

    def _processes(self) -> dict[int, tuple[int, str]]:
        """The arena's processes: their parents and commands."""
        marker = f"ANOMED_VAR={self.made.var}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marker in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    found[int(folder.name)] = (parent, command)
        return found

    def _sites(self) -> list[int]:
        return [pid for pid, (_parent, command) in self._processes().items() if "uvicorn" in command]

    def _sentinels(self) -> list[int]:
        """Children of the processes that the supervisor has started for the clusters."""
        clusters = {pid: parent for pid, (parent, command) in self._processes().items() if "qcluster" in command}
        leaders = {pid for pid, parent in clusters.items() if parent not in clusters}
        return [pid for pid, parent in clusters.items() if parent in leaders]

    def _workers(self) -> list[int]:
        """Workers of the cluster `runs`, with its pusher and its monitor."""
        runs = set(self.made.workers())
        sentinels = set(self._sentinels()) & runs
        processes = self._processes()
        return [pid for pid in runs if pid in processes and processes[pid][0] in sentinels]

    def _fill(self) -> None:
        filler = self.made.var.parent / "filler"
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                disk = os.statvfs(self.made.var)
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize)
                file.seek(0, os.SEEK_END)
                while True:  # the last blocks, and those that are freed meanwhile
                    file.write(bytes(4096))
            time.sleep(FULL_SECONDS)
        finally:
            filler.unlink(missing_ok=True)


def _insisting(start: Callable[[], None]) -> None:
    """What was killed may be in the way of its successor for a moment."""
    for _ in range(20):
        try:
            return start()
        except RuntimeError:
            time.sleep(0.5)
    return start()


# -- what is left


def _settle(made: Arena, engines: list[SpareEngine]) -> dict[str, int]:
    """Waits for the reaper, stops the arena, and counts what is there that should not be."""
    deadline = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < deadline:
        facts = json.loads(run_inside(made, "chaos", "leftovers"))
        if not any(facts.values()):
            break
        time.sleep(3)
    made.stop()
    installation = (made.var / "installation").read_text().strip()
    label = f"label=anomed.installation={installation}"
    for what, command in {
        "containers": ["ps", "-aq", "--filter", label],
        "volumes": ["volume", "ls", "-q", "--filter", label],
        "networks": ["network", "ls", "-q", "--filter", "type=custom"],
    }.items():
        outputs = [
            subprocess.run(["docker", f"--host={engine.url}", *command], capture_output=True, text=True, check=True)
            for engine in engines
        ]
        facts[what] = sum(len(output.stdout.split()) for output in outputs)
    marker = f"ANOMED_VAR={made.var}".encode()
    facts["processes"] = sum(_has(folder, marker) for folder in Path("/proc").glob("[0-9]*"))
    return dict(facts)


def _has(folder: Path, marker: bytes) -> bool:
    with contextlib.suppress(OSError):
        return marker in (folder / "environ").read_bytes().split(b"\0")
    return False


# -- inside of the arena


def inside(what: str, *arguments: str) -> None:
    """One of the three things below, with the arena's own database; prints what it found."""
    found = {"prepare": _prepare, "matrix": _play, "leftovers": _left}[what](*arguments)
    sys.stdout.write(json.dumps(found))


def _prepare(urls: str) -> None:
    """The hosts, if there are more than this machine; and a count of what is settled, kept by the database itself."""
    from django.db import connection

    from sandbox import inspection
    from sandbox.models import Host, Slot

    addresses = json.loads(urls)
    if len(addresses) > 1:
        Slot.objects.all().delete()
        Host.objects.update(state=Host.State.CORDONED)  # it would be one of the engines for a second time
        for number, address in enumerate(addresses, 1):
            host = Host.objects.create(name=f"chaos-{number}", url=address)
            Slot.objects.bulk_create(
                Slot(host=host, number=slot + 1) for slot in range(number - 1, SLOTS, len(addresses))
            )
    for host in Host.objects.asked():
        if fault := inspection.heartbeat(host):
            raise fault
    with connection.cursor() as cursor:
        for statement in _TRIGGERS[connection.vendor]:
            cursor.execute(statement)


_SETTLED = (("submissions_duel", "done"), ("sandbox_run", "succeeded"))
_TRIGGERS = {
    "sqlite": [
        "create table chaos_settled (what text, id text)",
        *(
            f"create trigger chaos_{table} after update of state on {table} when new.state = '{state}' "
            f"begin insert into chaos_settled values ('{table}', new.id); end"
            for table, state in _SETTLED
        ),
    ],
    "postgresql": [
        "create table chaos_settled (what text, id text)",
        "create function chaos_note() returns trigger language plpgsql as "
        "$$ begin insert into chaos_settled values (tg_table_name, new.id::text); return null; end $$",
        *(
            f"create trigger chaos_{table} after update of state on {table} for each row "
            f"when (new.state = '{state}') execute function chaos_note()"
            for table, state in _SETTLED
        ),
    ],
}


def _play(name: str, engine_id: str, side: str) -> dict[str, Any]:
    """Queues a matrix, waits for its last duel, and counts its results."""
    from django.db import DatabaseError, InterfaceError, connection, transaction
    from django.db.models import Sum

    from benchmarks import game
    from sandbox.models import Run
    from submissions.models import Duel, Submission

    Submission.objects.update(active=False)
    with connection.cursor() as cursor:
        cursor.execute("delete from chaos_settled")
    before = set(Run.objects.values_list("pk", flat=True))
    image = game.image(engine_id)
    for defense in game.entries(kind="defense", number=int(side), image=image, prefix=name):
        game.release(defense)
    game.entries(kind="attack", number=int(side), image=image, prefix=name)
    began = time.monotonic()
    with transaction.atomic():
        game.pair_all()
    deadline = began + 900 + 4 * int(side) ** 2 * (SECONDS + 2) / SLOTS
    while True:
        try:
            if not Duel.objects.pending().exists():
                break
        except (DatabaseError, InterfaceError):
            connection.close()
        if time.monotonic() > deadline:
            break  # the counts will tell
        time.sleep(0.2)
    seconds = round(time.monotonic() - began, 1)
    runs = Run.objects.exclude(pk__in=before)
    duels = Duel.objects.filter(step__run__in=runs, state=Duel.State.DONE).distinct()
    with connection.cursor() as cursor:
        counts = {}
        for table, _state in _SETTLED:
            cursor.execute("select count(*) from chaos_settled where what = %s", [table])
            counts[table] = cursor.fetchone()[0]
    sums = runs.aggregate(attempts=Sum("attempt"), lost_leases=Sum("lost_leases"), faults=Sum("faults"))
    return {
        "seconds": seconds,
        "done": duels.count(),
        "settled": counts["submissions_duel"],
        "succeeded": counts["sandbox_run"],
        **sums,
    }


def _left() -> dict[str, int]:
    """What no run under way has any more: there is none."""
    from sandbox.conf import private_root, scratch_root
    from sandbox.engine import RUN
    from sandbox.hosts import engine_of
    from sandbox.models import Host, Run, Slot

    return {
        "runs": Run.objects.running().count(),
        "slots": Slot.objects.exclude(run=None).count(),
        "scratch": len(list(scratch_root().glob("*"))),
        "incoming": len(list((private_root() / "incoming").glob("*"))),
        "run_containers": sum(
            RUN in found["Labels"] for host in Host.objects.asked() for found in engine_of(host).containers()
        ),
    }
