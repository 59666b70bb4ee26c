"""Queueing the runs of a submission. Which step comes when is decided in `flow` and `pairing`."""

from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from challenges.models import Challenge, Phase
from challenges.scenarios import registry
from challenges.scenarios.base import Images, Scenario
from sandbox import actions as sandbox
from sandbox import purposes
from sandbox.models import Run
from submissions.models import Duel, Step, Submission

PURPOSE: Final = "submission-step"

# People wait for rehearsals; releases come before duels because duels need them; nobody waits for a blind control.
_REHEARSAL, _RELEASE, _DUEL, CONTROL = 30, 20, 10, 5


def name_priorities() -> None:
    """Tells the sandbox what to call them where operators look."""
    purposes.name_priority(_REHEARSAL, "rehearsal", _("Rehearsals"))
    purposes.name_priority(_RELEASE, "release", _("Runs on the private data"))
    purposes.name_priority(_DUEL, "duel", _("Duels"))
    purposes.name_priority(CONTROL, "control", _("Blind controls"))


def scenario_of(submission: Submission) -> Scenario:
    return registry.get(submission.challenge.scenario)


def images_of(submission: Submission) -> Images:
    """What the entry's image gets and leaves, by the contract that it keeps to."""
    return scenario_of(submission).images(submission.contract)


def limits_of(challenge: Challenge) -> dict[str, Any]:
    """The resources of each run of a challenge."""
    return {**challenge.limits, "gpu_memory_mb": challenge.gpu_memory_mb}


def names(submission: Submission) -> tuple[str, ...]:
    """The steps that an entry of this kind goes through, in order."""
    scenario = scenario_of(submission)
    return scenario.defense_steps if submission.is_defense else (scenario.attack_step,)


def next_name(submission: Submission, name: str) -> str | None:
    """The step of an entry after this one, or None if it was the last."""
    order = names(submission)
    place = order.index(name) + 1
    return order[place] if place < len(order) else None


def queue_rehearsal(submission: Submission, name: str, previous: Step | None = None) -> Step:
    """One step on the public sample. Its log is the team's to read."""
    return _queue(submission, name, priority=_REHEARSAL, previous=previous)


def queue_release(submission: Submission, name: str, phase: Phase, seed: int, previous: Step | None = None) -> Step:
    """One step towards a release on the private data."""
    return _queue(submission, name, priority=_RELEASE, phase=phase, seed=seed, previous=previous)


def queue_duel(duel: Duel) -> Step:
    """The run of an attack against a release."""
    release = duel.release
    name = scenario_of(duel.attack).attack_step
    return _queue(duel.attack, name, priority=_DUEL, phase=release.phase, seed=release.seed, duel=duel)


def _queue(
    submission: Submission,
    name: str,
    *,
    priority: int,
    phase: Phase | None = None,
    seed: int = 0,
    duel: Duel | None = None,
    previous: Step | None = None,
) -> Step:
    run = start(submission, name, purpose=PURPOSE, priority=priority, private=phase is not None)
    return Step.objects.create(
        submission=submission, run=run, name=name, phase=phase, seed=seed, duel=duel, previous=previous
    )


def start(submission: Submission, name: str, *, purpose: str, priority: int, private: bool) -> Run:
    """Queues a container of an entry's image for one of its steps."""
    assert submission.image is not None  # nothing is queued before the image is checked
    return sandbox.queue(
        image=submission.image,
        purpose=purpose,
        step=name,
        limits=limits_of(submission.challenge),
        walls=submission.challenge.walls,
        contract=submission.contract,
        collect=images_of(submission).collect(name),
        owner=submission.owner,
        priority=priority,
        private=private,
    )
