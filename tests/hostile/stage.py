"""The arena that the cases are entered into, as a participant would: through the API, by resumable upload."""

import contextlib
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx

from tests.arena import ORGANISER, PASSWORD, Arena, patients, wait_for, write_challenge
from tests.hostile import archives
from tests.hostile.model import ANONYMISED, SYNTHETIC, Case, Outcome, Seen, judge

MALLORY, POLLY = "mallory@web.example.org", "polly@uni.example.org"
CANARY = 103.9173  # a value of private patients alone
ROWS = 1500
LIMITS = {"seconds": 30, "memory_mb": 256, "cpus": 1, "gpus": 0, "output_mb": 8, "pids": 256}
MAX_IMAGE_BYTES = 900_000_000  # the base has 600 MB; a bomb need not be larger than that to be one
ATTACKS, DEFENSES = "clinic", "clinic-models"  # an attack meets one defense, a defense one attack
# Where tables are released, and met by nobody; attacks are held up in their rehearsal.
GAMES = {SYNTHETIC: "synthetic-membership", ANONYMISED: "table-reconstruction"}
ROLES = {"age": "quasi-identifier", "sex": "quasi-identifier", "glucose": "secret"}
_OVER = ("scored", "failed", "withdrawn", "disqualified")

POLITE = """
from inside import *

answers = rows("candidates_answers" if (INPUT / "candidates_answers.parquet").exists() else "answers", ("row", "yes"))
lines = [f"{row},{abs(yes - 0.5)}" for row, yes in zip(answers["row"], answers["yes"])]
write(OUTPUT / "scores.csv", "\\n".join(["row,score", *lines]) + "\\n")
say("polite", "done")
"""


@dataclass
class Entry:
    """A case that was entered, and what is known of it by now."""

    case: Case
    challenge: str
    email: str
    id: str = ""
    refusal: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    seen: Seen = field(default_factory=lambda: Seen(Outcome("")))
    stage: "Stage | None" = None

    @property
    def over(self) -> bool:
        return bool(self.refusal) or self.facts.get("state") in _OVER


@dataclass
class HostileArena(Arena):
    """An arena that demands the walls of `walls` of every run."""

    walls: str = ""
    browsers: dict[str, httpx.Client] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment,
            "ANOMED_WALLS": self.walls,
            "ANOMED_MAX_IMAGE_BYTES": str(MAX_IMAGE_BYTES),
            "ANOMED_LEASE_SECONDS": "30",
        }

    def browser(self, email: str) -> httpx.Client:
        """A session like a browser's, signed in once."""
        if email not in self.browsers:
            session = httpx.Client(base_url=self.url, follow_redirects=True, timeout=60, headers={"Origin": self.url})
            session.get("/accounts/login/")
            form = {"login": email, "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
            session.post("/accounts/login/", data=form)
            self.browsers[email] = session
        return self.browsers[email]


class Stage:
    """Starts once; each runtime plays on it. Use as a context manager."""

    def __init__(self, var: Path) -> None:
        self.arena = HostileArena(var=var)
        self.base = archives.Base.from_engine()
        self._posts = threading.local()

    def __enter__(self) -> "Stage":
        again = (self.arena.var / "db.sqlite3").exists()  # a kept arena plays once more
        try:
            if again:
                self.arena.manage("migrate", "--verbosity", "0")
                self.arena.serve()
            else:
                self.arena.start()
                self._furnish()
        except BaseException:
            self.arena.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.arena.stop()

    def _furnish(self) -> None:
        arena = self.arena
        table = patients(ROWS)
        table.loc[::40, "glucose"] = CANARY
        quotas = {"daily": 9999, "total": 9999, "failures_daily": 9999, "active": 999}
        for slug in (ATTACKS, DEFENSES, *GAMES):
            how: dict[str, Any] = {"slug": slug, "title": slug, "limits": LIMITS, "quotas": quotas}
            if slug in GAMES:
                how |= {"scenario": GAMES[slug], "data.roles": ROLES}
            folder = write_challenge(arena.var / slug, table, **how)
            arena.manage("challenge_import", str(folder), "--organiser", ORGANISER, "--publish")
        archive = arena.var / "base.tar"
        subprocess.run(["docker", "save", "--output", str(archive), archives.BASE], check=True)
        arena.manage("base_image_add", str(archive), archives.BASE)
        archive.unlink()
        for email in (MALLORY, POLLY):
            arena.sign_up(email).close()
            for slug in (ATTACKS, DEFENSES, *GAMES):
                self.call(
                    email, "POST", f"challenges/{slug}/join", json={"team": email.split("@")[0], "accept_rules": True}
                )
        opponents = [
            self._opponent(ATTACKS, "defense", "trivial", "from inside import *\npolite()"),
            self._opponent(DEFENSES, "attack", "baseline", POLITE),
        ]
        wait_for(lambda: all(self.refresh(one).over for one in opponents), seconds=120, what="the opponents stand")
        for one in opponents:
            assert one.facts.get("state") == "scored", one

    def _opponent(self, challenge: str, kind: str, role: str, program: str) -> Entry:
        case = Case(f"opponent-{role}", "", "", "", kind=kind)
        path = self.arena.var / f"{role}.tar"
        archives.image(self.base, case.id, program, {}).docker_archive(path)
        return self.enter(case, path, email=ORGANISER, challenge=challenge, role=role)

    def call(self, email: str, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Token {self.arena.token(email)}", **more.pop("headers", {})}
        url = path if path.startswith("http") else f"{self.arena.url}/api/v1/{path}"
        client = getattr(self._posts, "client", None)
        if client is None:
            client = self._posts.client = httpx.Client(timeout=120)
        return client.request(method, url, headers=headers, **more)

    def enter(self, case: Case, archive: Path, *, email: str = MALLORY, challenge: str = "", role: str = "") -> Entry:
        """Announces and uploads, as the client does."""
        challenge = challenge or case.game or (ATTACKS if case.kind == "attack" else DEFENSES)
        entry = Entry(case, challenge, email, stage=self)
        body = {"kind": case.kind, "file_name": f"{case.id}.tar", "size": archive.stat().st_size}
        body |= {"role": role} if role else {}
        answer = self.call(email, "POST", f"challenges/{challenge}/submissions", json=body)
        if answer.status_code != 201:
            entry.refusal = answer.text
            return entry
        entry.facts = answer.json()
        entry.id = entry.facts["id"]
        headers = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0", "Tus-Resumable": "1.0.0"}
        sent = self.call(email, "PATCH", entry.facts["upload"]["url"], content=archive.read_bytes(), headers=headers)
        assert sent.status_code == 204, sent.text
        return entry

    def refresh(self, entry: Entry) -> Entry:
        """Asks the API how far it is."""
        if not entry.over:
            entry.facts = self.call(entry.email, "GET", f"submissions/{entry.id}").json()
        return entry

    def wait(self, entries: list[Entry], *, seconds: float, progress: Any = None) -> None:
        """Until all have ended. Those that have not are judged as they stand."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            waiting = [entry for entry in entries if not entry.over]
            if progress:
                progress(len(entries) - len(waiting), len(entries))
            if not waiting:
                return
            for entry in waiting[:6]:  # about the order in which they end
                self.refresh(entry)
            if not any(entry.over for entry in waiting[:6]):
                for entry in waiting[6:]:
                    self.refresh(entry)
            time.sleep(0.3)

    def observe(self, entry: Entry, runtime: str) -> Seen:
        """How it ended, its rehearsal's log as its team reads it, and its private one as the operator does."""
        seen = entry.seen = Seen(self._outcome(entry))
        if entry.id and entry.case.program and seen.outcome.reason != "image_invalid":  # else nothing ran
            shown = self.call(entry.email, "GET", f"submissions/{entry.id}/log").json()["log"]
            seen.logs["rehearsal"] = shown
            if seen.outcome.cause == "":
                seen.logs["private"] = self.private_log(entry)
        seen.complaints = judge(entry.case, seen, runtime)
        if entry.case.check is not None:
            try:
                seen.complaints += entry.case.check(entry)
            except Exception as error:  # one broken look must not hide what the other cases showed
                seen.complaints.append(f"it could not be looked at: {error!r}")
        return seen

    def _outcome(self, entry: Entry) -> Outcome:
        if entry.refusal:
            return Outcome("refused", says=entry.refusal)
        failure = entry.facts.get("failure") or {}
        said = f"{failure.get('sentence', '')} {failure.get('detail', '')}"
        return Outcome(entry.facts["state"], failure.get("reason", ""), failure.get("cause", ""), said)

    def private_runs(self, entry: Entry) -> list[str]:
        """Ids of the runs of an entry on private data."""
        rows = self.arena.query(
            "select r.id from sandbox_run r join submissions_step s on s.run_id = r.id"
            " where s.submission_id = ? and r.private order by r.queued_at",
            entry.id.replace("-", ""),
        )
        return [row[0] for row in rows]

    def private_log(self, entry: Entry) -> str:
        """What its containers printed on private data: for the operator alone."""
        folders = {path.name.replace("-", ""): path for path in (self.arena.var / "private" / "runs").iterdir()}
        logs = [folders[run.replace("-", "")] / "log.txt" for run in self.private_runs(entry)]
        return "\n".join(path.read_text(errors="replace") for path in logs if path.exists())

    def leak(self, entry: Entry) -> float | None:
        """What an attack took from the one defense that it meets, as everybody may see it."""
        cells = self.call(entry.email, "GET", f"challenges/{entry.challenge}/matrix").json()["cells"]
        return next((cell["leak"] for cell in cells if cell["attack"] == entry.id), None)

    def scratch(self) -> list[str]:
        """Working files that are still there."""
        private = self.arena.var / "private"
        places = (private / "scratch", private / "blobs" / "incoming", private / "uploads", private / "incoming")
        return [str(path.relative_to(private)) for place in places if place.exists() for path in place.rglob("*")]

    def leftovers(self) -> dict[str, list[str]]:
        """Containers and volumes of this arena beside the chambers that its workers hold ready."""
        label = f"label=anomed.installation={(self.arena.var / 'installation').read_text().strip()}"
        listing = {
            "containers": ["docker", "ps", "-aq", "--filter", label, "--filter", "label=anomed.run"],
            "all containers": ["docker", "ps", "-aq", "--filter", label],
            "all volumes": ["docker", "volume", "ls", "-q", "--filter", label],
        }
        return {
            name: subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            for name, command in listing.items()
        }

    def remove_images(self) -> None:
        """Takes off the engine what this arena has loaded: it will not come back."""
        prefix = f"anomed-{(self.arena.var / 'installation').read_text().strip()[:8]}"
        client = docker.from_env().api
        for image in client.images(name=f"{prefix}/*"):
            for tag in image["RepoTags"] or ():
                with contextlib.suppress(docker.errors.APIError):  # another name of it is in use
                    client.remove_image(tag)


def processes(arena: Arena) -> dict[int, str]:
    """The workers of the runs cluster with their birth: one that was restarted has another."""
    found = {}
    for pid in arena.workers():
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            found[pid] = stat.read_text().rpartition(")")[2].split()[19]
    return found


__all__ = ["ATTACKS", "DEFENSES", "MALLORY", "PASSWORD", "POLLY", "Entry", "Stage", "processes"]
