"""The demo: a bundled challenge, entered through the client as several teams would.

Everything goes the way of a participant: images from the engine, `anomed submit`, the public API. Only the accounts are
made directly, because there is nobody to read their mail.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db.models import Count, F, Q
from knox.models import get_token_model

from anomed_site.models import User
from challenges.models import Challenge
from sandbox import actions as sandbox
from sandbox.models import Image
from submissions import actions
from submissions.models import Duel, Membership, Reckoning, Submission
from submissions.states import OVER, State

BUNDLED = Path(settings.BASE_DIR) / "challenges" / "bundled"
KITS = Path(settings.BASE_DIR) / "starter_kits"
BASES = ("base", "base-web")  # folders beside the kits that hold no kit
DEFAULT_SCENARIO = "model-membership"
ORGANISER = "organiser@demo.invalid"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """One kit, entered by one team, or by the organiser in a role."""

    kit: str
    kind: str
    team: str = ""
    role: str = Submission.Role.ENTRY

    @property
    def image(self) -> str:
        return f"anomed/{self.kit}"


def base_image(kit: str) -> str:
    """The shared base image at the bottom of a kit; "" if it has one of its own."""
    found = re.search(r"^ARG BASE_IMAGE=anomed/(\S+)", (KITS / kit / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        return ""
    return base_image(found[1]) if (KITS / found[1]).is_dir() and found[1] not in BASES else f"anomed/{found[1]}"


@dataclass(frozen=True)
class Demo:
    """What is played: a bundled challenge, and who enters what, in order (its `demo.toml`)."""

    folder: Path
    entries: tuple[Entry, ...]

    @property
    def slug(self) -> str:
        return self.folder.name


def find(scenario: str) -> Demo:
    """The demo of this scenario. Raises DemoFailed with those that there are, if there is none."""
    demos = {tomllib.loads((path.parent / "challenge.toml").read_text())["scenario"]: path for path in _plans()}
    if scenario not in demos:
        raise DemoFailed(f"There is no demo of “{scenario}”. There are: {', '.join(sorted(demos))}.")
    plan = tomllib.loads(demos[scenario].read_text())
    return Demo(demos[scenario].parent, tuple(Entry(**facts) for facts in plan["entries"]))


def _plans() -> list[Path]:
    return sorted(BUNDLED.glob("*/demo.toml"))


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


def publish(demo: Demo, say: Say) -> Challenge:
    """The demo challenge: imported, checked and published unless it is there."""
    organiser = account(ORGANISER, staff=True)
    challenge = Challenge.objects.filter(slug=demo.slug).first()
    if challenge is None or challenge.status == Challenge.Status.DRAFT:
        say(f"Importing, checking and publishing {demo.slug} ...")
        call_command("challenge_import", str(demo.folder), organiser=organiser.email, publish=True, verbosity=0)
    return Challenge.objects.get(slug=demo.slug)


def build_images(demo: Demo, say: Say) -> None:
    """The kits that are entered, on the engine; the layers of their base images become public on the server."""
    say("Building the base images and the starter kits (the first time takes minutes) ...")
    kits = sorted({entry.kit for entry in demo.entries})
    subprocess.run([sys.executable, str(KITS / "build.py"), *kits], check=True)
    for name in sorted({base_image(kit) for kit in kits} - {""}):
        _register(name, say)


def _register(name: str, say: Say) -> None:
    inspect = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", name], check=True, capture_output=True, text=True
    )
    if Image.objects.bases().filter(image_id=inspect.stdout.strip()).exists():
        return
    say(f"Registering {name}: participants need not upload its layers ...")
    with tempfile.TemporaryDirectory(dir=settings.PRIVATE_ROOT) as folder:
        archive = Path(folder) / "image.tar"
        subprocess.run(["docker", "save", "--output", str(archive), name], check=True)
        sandbox.register_base_image(archive=archive, name=name)


def account(email: str, *, staff: bool = False) -> User:
    """A demo person with the password that `credentials` tells."""
    user = User.objects.filter(email=email).first()
    if user is None:
        user = User.objects.create_user(email, credentials()["password"], is_staff=staff, is_superuser=staff)
    return user


def credentials() -> dict[str, str]:
    """The one password of all demo accounts: random, kept in var/, never the same on two machines."""
    path = Path(settings.VAR) / "demo.json"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(json.dumps({"password": secrets.token_urlsafe(12)}))
    return dict(json.loads(path.read_text()))


def answers(server: str) -> bool:
    """Whether the site is up."""
    try:
        with urllib.request.urlopen(f"{server}/healthz", timeout=5) as response:  # noqa: S310 -- our own address
            return bool(response.status == 200)
    except OSError:
        return False


def email_of(team: str) -> str:
    return f"{team.lower().replace(' ', '.')}@demo.invalid"


def enter(challenge: Challenge, entry: Entry, server: str, say: Say) -> None:
    """Enters one kit through the client, unless it has been entered before."""
    if _present(challenge, entry).exists():
        return
    user = account(email_of(entry.team) if entry.team else ORGANISER)
    if entry.team and not Membership.objects.filter(user=user, challenge=challenge).exists():
        actions.join(challenge=challenge, user=user, team_name=entry.team)
    say(f"{entry.team or 'The organiser'} enters {entry.kit} as {entry.kind} ...")
    row, token = get_token_model().objects.create(user)
    command = [sys.executable, "-m", "anomed", "submit", challenge.slug, f"--{entry.kind}", entry.image]
    command += ["-m", f"starter kit {entry.kit}"]
    command += ["--as", entry.role] if not entry.team else []
    environment = {**os.environ, "ANOMED_SERVER": server, "ANOMED_TOKEN": token}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    row.delete()
    if done.returncode:
        raise DemoFailed(f"{entry.kit} could not be entered:\n{done.stdout}{done.stderr}")


def _present(challenge: Challenge, entry: Entry) -> Any:
    mine = Submission.objects.filter(challenge=challenge, kind=entry.kind, name=entry.kit, role=entry.role)
    if entry.team:
        mine = mine.filter(team__name=entry.team)
    return mine.exclude(state__in=[State.FAILED, State.WITHDRAWN, State.DISQUALIFIED])


@dataclass(frozen=True)
class Progress:
    """How far the duels are, and whether intervals and ranks have followed them."""

    entries_over: int
    entries: int
    duels_over: int
    duels: int
    reckoned: bool
    failed: list[str]

    @property
    def finished(self) -> bool:
        return self.entries_over == self.entries and self.duels_over == self.duels and self.reckoned

    def __str__(self) -> str:
        over = f"{self.entries_over} of {self.entries} entries scored, {self.duels_over} of {self.duels} duels over"
        return f"{over}, ranks to come" if self.duels_over == self.duels and not self.reckoned else over


def progress(challenge: Challenge) -> Progress:
    entries = Submission.objects.filter(challenge=challenge).exclude(state=State.WITHDRAWN)
    duels = Duel.objects.filter(attack__challenge=challenge).aggregate(
        all=Count("pk"), over=Count("pk", filter=~Q(state=Duel.State.PENDING))
    )
    failures = [f"{one.name}: {one.failure_reason}" for one in entries.filter(state=State.FAILED)]
    lost = Duel.objects.filter(attack__challenge=challenge, state=Duel.State.FAILED).select_related("attack")
    failures += [f"duel of {duel.attack.name}: {duel.reason}" for duel in lost]
    return Progress(
        entries_over=entries.filter(state__in=OVER).count(),
        entries=entries.count(),
        duels_over=duels["over"],
        duels=duels["all"],
        reckoned=not Reckoning.objects.filter(phase__challenge=challenge).exclude(changes=F("reckoned")).exists(),
        failed=failures,
    )
