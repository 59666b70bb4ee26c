"""A challenge with many defenses that have released something and many attacks, made without running them.

The rows are the ones that the site writes; only the defenses' releases are invented.
"""

import numpy as np

from challenges.models import Challenge
from sandbox.contracts import Contract
from sandbox.models import Image
from submissions import pairing, standings
from submissions.models import Duel, Release, Standing, Submission, Team
from submissions.states import State


def entries(*, kind: str, number: int, image: Image, prefix: str, contract: str = Contract.FILES) -> list[Submission]:
    """`number` active entries of as many teams, all scored."""
    challenge = Challenge.objects.get()
    made = []
    for index in range(number):
        team = Team.objects.create(challenge=challenge, name=f"{prefix} {kind} {index}")
        entry = Submission.objects.create(
            challenge=challenge,
            team=team,
            kind=kind,
            name=f"{kind}-{index}",
            image=image,
            contract=contract,
            state=State.SCORED,
            active=True,
        )
        Standing.objects.create(submission=entry, phase=challenge.phases.get())
        made.append(entry)
    return made


def release(defense: Submission) -> Release:
    """A release that answers every question alike."""
    challenge = defense.challenge
    phase = challenge.phases.get()
    made = Release.objects.create(submission=defense, phase=phase, seed=0, sha256="0" * 64, utility=0.8)
    queries = len(phase.deal(scope=str(defense.pk), seed=0).queries)
    made.folder.mkdir(parents=True)
    np.save(made.folder / "answers.npy", np.full((queries, 2), 0.5))
    standings.refresh_defense(defense, phase)
    return made


def pair_all() -> int:
    """Queues every duel that is due; returns how many there are."""
    for attack in Submission.objects.active().attacks():
        pairing.pair(attack, attack.challenge.phases.get())
    return Duel.objects.count()


def image(engine_id: str) -> Image:
    """The row of an image that the engine holds already."""
    return Image.objects.get_or_create(image_id=engine_id, defaults={"layers": [], "size": 1})[0]
