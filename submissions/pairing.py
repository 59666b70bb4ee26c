"""Which duels are due: every attack that plays in a phase against every release there of a defense of another team.

A new entry costs one row or one column of runs. Anchors and baselines belong to no team and meet everybody.
"""

from collections.abc import Iterable

from django.db.models import Q

from challenges.models import Phase
from submissions import steps
from submissions.models import Duel, Release, Submission


def pair(submission: Submission, phase: Phase) -> int:
    """Queues the duels of a phase that an entry still owes or is owed; returns how many. Joins a transaction."""
    if submission.is_defense:
        releases = Release.objects.filter(submission=submission, phase=phase).select_related("phase")
        return sum(_against_release(release) for release in releases)
    foreign = Release.objects.in_play(phase)
    if submission.team_id is not None:
        foreign = foreign.exclude(submission__team_id=submission.team_id)
    met = Duel.objects.filter(attack=submission).values("release")
    return _queue((submission, release) for release in foreign.exclude(pk__in=met).select_related("phase"))


def _against_release(release: Release) -> int:
    defense = release.submission
    others = ~Q(team_id=defense.team_id) | Q(team=None) if defense.team_id is not None else Q()
    met = Duel.objects.filter(release=release).values("attack")
    attacks = Submission.objects.playing(release.phase).attacks().filter(others).exclude(pk__in=met)
    return _queue((attack, release) for attack in attacks.select_related("challenge", "image"))


def _queue(pairs: Iterable[tuple[Submission, Release]]) -> int:
    number = 0
    for attack, release in pairs:
        duel = Duel.objects.create(attack=attack, release=release)
        steps.queue_duel(duel)
        number += 1
    return number
