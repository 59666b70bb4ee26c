"""A game played without containers: canonical files as the platform writes them, judged by the real scenario."""

import zlib
from typing import Any

import numpy as np

from challenges.scenarios import registry
from submissions import flow, scoring
from submissions.models import Duel, Release, Step, Submission


def release(defense: Submission, **which: Any) -> Release:
    """Ends a defense's runs on the private data: it releases the answers of the platform's own linear model.

    `which` are conditions on the runs.
    """
    for name in registry.get(defense.challenge.scenario).defense_steps:
        for step in _steps(submission=defense, name=name, phase__isnull=False, **which):
            folder = step.run.result_folder
            folder.mkdir(parents=True, exist_ok=True)
            if step.name == registry.get(defense.challenge.scenario).defense_steps[-1]:
                registry.get(defense.challenge.scenario).reference_release(scoring.board_of(step), folder)
            flow.run_ended(step, step.run, scoring.judge(step, folder))
    return defense.releases.order_by("seed")[0]


def duel(one: Duel, strength: float = 0.0, known: float = 0.0, noise: float = 1.0) -> Duel:
    """Ends a duel with scores: normal noise, plus `strength` for members, of whom a share is `known` for certain."""
    step = _steps(duel=one)[0]
    member = scoring.board_of(step).deal.scored_member
    random = np.random.default_rng(zlib.crc32(f"{one.attack.name} {one.release.seed}".encode()))
    scores = noise * random.normal(size=len(member)) + strength * member
    scores = np.where(member & (random.random(len(member)) < known), 100 + scores, scores)
    folder = step.run.result_folder
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "scores.npy", scores)
    flow.run_ended(step, step.run, scoring.judge(step, folder))
    one.refresh_from_db()
    return one


def duels(defense: Submission, *, noise: float = 1.0, **strengths: float) -> None:
    """Ends all duels that wait for a defense; `strengths` by the attack's name, default 0."""
    waiting = Duel.objects.pending().filter(release__submission=defense).select_related("attack")
    for one in waiting.order_by("pk"):
        duel(one, strengths.get(one.attack.name, 0.0), noise=noise)


def _steps(**which: Any) -> list[Step]:
    context = ("run", "submission__challenge", "phase__challenge", "duel__release__submission", "duel__attack")
    return list(Step.objects.filter(**which).select_related(*context).order_by("pk"))
