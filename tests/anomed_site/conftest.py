"""What the pages' tests share: a field of scored entries, and pages asked for as several kinds of person."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Browser, sync_playwright

from anomed_site.models import User
from challenges.models import Challenge
from sandbox.models import Image, Run
from submissions.models import Duel, Release, Standing, Step, Submission, Team

BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
LEAKS = [[0.123, 0.123], [0.123, 0.123]]  # of the two folds, A and B each
NUMBERS = {"utility": 0.8123, "privacy": 0.9, "worst_leak": 0.02, "mean_leak": 0.02}
WHO = ("anonymous", "carl", "ada", "ben", "olga")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real one, for tests of a running arena."""
    browser_path = next(path for path in BROWSERS if Path(path).exists())
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        launched = playwright.chromium.launch(executable_path=browser_path, args=flags)
        yield launched
        launched.close()


@pytest.fixture
def browsers(teams: dict[str, Team], olga: User, ada: User, ben: User, carl: User) -> dict[str, Client]:
    """A signed-in browser for each of the cast, and one that is not signed in."""
    clients = {who: Client() for who in WHO}
    for user in (olga, ada, ben, carl):
        clients[user.email.split("@")[0]].force_login(user)
    return clients


def add_run(submission: Submission, name: str, *, private: bool, state: str = "succeeded", **facts: Any) -> Run:
    """A step of an entry with its run, as if it had taken place."""
    assert submission.image is not None
    run = Run.objects.create(
        purpose="submission-step",
        step=name,
        image=submission.image,
        owner="test",
        private=private,
        state=state,
        **facts,
    )
    phase = submission.challenge.phases.get() if private else None
    Step.objects.create(submission=submission, run=run, name=name, phase=phase)
    return run


@pytest.fixture
def field(clinic: Challenge, teams: dict[str, Team], image: Image) -> Callable[[int], list[Submission]]:
    """Makes that many defenses of Ada's and attacks of Ben's, with a duel for each pair, all scored."""

    def entry(kind: str, team: Team, number: int) -> Submission:
        submission = Submission.objects.create(
            challenge=clinic, team=team, kind=kind, name=f"{kind}-{number}", image=image, state="scored", active=True
        )
        Standing.objects.create(
            submission=submission,
            phase=clinic.phases.get(),
            qualified=True,
            public_utility=0.8,
            public_privacy=0.9,
            public_worst_leak=0.02,
            worst_leak=0.02,
            public_mean_leak=0.02,
            public_score=80 - number,
            utility=0.8123,
            privacy=0.9,
            mean_leak=0.02,
            score=80.123 - number,
            intervals={name: [value - 0.0123, value + 0.0123] for name, value in NUMBERS.items()}
            | {"score": [75.2 - number, 85.2 - number]},
            band=number + 1,
        )
        return submission

    def make(number: int) -> list[Submission]:
        defenses = [entry("defense", teams["ada"], place) for place in range(number)]
        attacks = [entry("attack", teams["ben"], place) for place in range(number)]
        phase = clinic.phases.get()
        for defense in defenses:
            release = Release.objects.create(submission=defense, phase=phase, seed=0, sha256="0" * 64, utility=0.8)
            Duel.objects.bulk_create(
                Duel(attack=attack, release=release, state="done", mean_leak=0.123, leaks=LEAKS, errors=LEAKS)
                for attack in attacks
            )
        return defenses + attacks

    return make
