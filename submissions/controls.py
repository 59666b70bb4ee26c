"""Blind controls: does an attack know more than a release tells it? (SCORING 4)

Once for each seed of a phase, every attack is given an ordinary duel with an anchor in which one thing is exchanged:
the release comes from the anchor's *twin*, the same image run once more on people who were dealt again. All else is the
anchor's own: the candidates, their order and tokens, the known records, the seed in task.json, the truth that scores
are held against. The coins of the scored candidates were tossed anew for the twin, those of the known ones were not.

So whatever an attack gets right is not from the release: it was recomputed from public names, read off the order or
the tokens of the rows, or told by somebody. To the container it looks like any duel with that anchor: what it is told
of the known records is true of both deals. If it were true of the twin's alone, what the harness betrays of its own
deal could not be carried over from them to the others; if of the anchor's alone, the release would contradict it, and
an attack could tell a control from a duel, and behave.

The leakiest anchor there is has the twin: whoever reads the release reads much in it, about the wrong people. For
scenarios of residual risk the same holds: targets and control persons are dealt by the anchor's coins, the release by
the twin's, so that both are found equally often.

No score, band, exposure or flag of collusion is computed from any of this, and nobody waits for it.
"""

import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from challenges import splits, tables
from challenges.models import Challenge, Phase
from challenges.scenarios import control as weighing
from challenges.scenarios.base import Board
from challenges.splits import Deal
from sandbox import actions as sandbox
from sandbox.models import Run
from sandbox.reasons import Reason
from submissions import scoring, steps
from submissions.models import Control, Release, Submission, Twin
from submissions.models.controls import Part
from submissions.steps import scenario_of

PURPOSE: Final = "blind-control"
# The anchor that has the twin: the first of these that has released something.
_ROLES: Final = (Submission.Role.LEAKY, Submission.Role.TUNED, Submission.Role.TRIVIAL)
# What a fault of the platform ended is tried again after this: whatever ailed it should be over by then.
_FAULT_PAUSE: Final = timedelta(minutes=10)
# A run ends and is settled in one transaction; what is unsettled after this was given up.
_SETTLED_BY_THEN: Final = timedelta(minutes=1)

log = structlog.get_logger("submissions")


# What is due ----------------------------------------------------------------------------------------------------------


def arrange() -> None:
    """Queues the controls that are due in all phases under way, and what the platform spoilt once more.

    The sweep calls it every minute, so that attacks from before there were controls get theirs too.
    """
    for phase in Phase.objects.exclude(challenge__status=Challenge.Status.DRAFT).select_related("challenge"):
        if _is_under_way(phase):
            with transaction.atomic():
                Challenge.objects.select_for_update().get(pk=phase.challenge_id)
                _arrange(phase)


def _is_under_way(phase: Phase) -> bool:
    published = phase.challenge.status == Challenge.Status.PUBLISHED
    if phase.is_final:  # one that is not revealed goes on when its challenge is closed
        begun = phase.is_frozen and phase.opens_at is not None and phase.opens_at <= timezone.now()
        return begun and (published or phase.is_sealed)
    return published and phase.is_open


def _arrange(phase: Phase) -> None:
    for part in _parts(phase):
        _settle_forgotten(part)
        if (
            part.state == Part.State.FAILED
            and part.reason == Reason.PLATFORM_FAULT
            and _is_older(part.finished_at, _FAULT_PAUSE)
        ):
            _start(part, part.run.step)
    playing = Submission.objects.playing(phase).attacks()
    _drop(Control.objects.of_phase(phase).pending().exclude(attack__in=playing))
    if playing.exists():
        for seed in range(phase.seeds):
            twin = _twin(phase, seed)
            if twin is not None and twin.state == Part.State.DONE:
                _pair(twin)


def _parts(phase: Phase) -> list[Twin | Control]:
    """What of a phase is not settled for good."""
    unsettled = Q(state=Part.State.PENDING) | Q(reason=Reason.PLATFORM_FAULT)
    twins = Twin.objects.filter(unsettled, phase=phase).select_related("run", *_CONTEXT)
    controls = Control.objects.of_phase(phase).filter(unsettled, attack__in=Submission.objects.playing(phase))
    return [*twins, *controls.select_related("run", "attack__challenge", "attack__image")]


def _twin(phase: Phase, seed: int) -> Twin | None:
    """The twin of a phase's seed: a made one, the one under way, or a new one; None while no anchor has released."""
    there = Twin.objects.filter(phase=phase, seed=seed).order_by("pk")
    made = [twin for twin in there.filter(state=Part.State.DONE) if twin.folder.is_dir()]  # files go with their anchor
    if made or (made := list(there.filter(state=Part.State.PENDING))):
        return made[0]
    if there.filter(reason=Reason.PLATFORM_FAULT).exists():
        return None  # it is tried again
    tried = there.values("defense")
    anchors = Release.objects.in_play(phase).filter(seed=seed, submission__role__in=_ROLES)
    releases = anchors.exclude(submission__in=tried).select_related("submission__challenge", "submission__image")
    found = sorted(releases, key=lambda made: (_ROLES.index(made.submission.role), made.submission.created_at))
    if not found:
        return None
    twin = Twin(defense=found[0].submission, phase=phase, seed=seed)
    _start(twin, steps.names(twin.defense)[0])
    return twin


def _pair(twin: Twin) -> None:
    """Queues the controls of all attacks that have not met a twin of that seed."""
    met = Control.objects.filter(twin__phase=twin.phase_id, twin__seed=twin.seed).values("attack")
    attacks = Submission.objects.playing(twin.phase).attacks().exclude(pk__in=met)
    for attack in attacks.select_related("challenge", "image"):
        _start(Control(attack=attack, twin=twin), scenario_of(attack).attack_step)


def _start(part: Twin | Control, step: str) -> None:
    who = _entry(part)
    part.run = steps.start(who, step, purpose=PURPOSE, priority=steps.CONTROL, private=True)
    part.state, part.reason, part.finished_at = Part.State.PENDING, "", None
    part.save()


def _entry(part: Twin | Control) -> Submission:
    """Whose container runs."""
    return part.defense if isinstance(part, Twin) else part.attack


def stop(submission: Submission) -> None:
    """Cancels what of an entry is under way here. Joins a transaction."""
    _drop(Control.objects.pending().filter(attack=submission))
    _drop(Twin.objects.filter(defense=submission, state=Part.State.PENDING))


def _drop(parts: Any) -> None:
    found = list(parts.select_related("run"))
    # One that is being settled right now is held by its worker, who waits for our lock and then finds nothing.
    runs = Run.objects.select_for_update(skip_locked=True).filter(pk__in=[part.run_id for part in found])
    for run in runs:
        sandbox.cancel(run=run)
    parts.model.objects.filter(pk__in=[part.pk for part in found]).delete()


# What a run needs, and what becomes of it -----------------------------------------------------------------------------

_CONTEXT: Final = ("defense__challenge__dataset", "defense__image", "phase__challenge__dataset", "previous")
_ATTACK_CONTEXT: Final = ("attack__challenge__dataset", "attack__image", *(f"twin__{name}" for name in _CONTEXT))


def part_of(run: Run) -> Twin | Control | None:
    """The twin or the control that a run is for; None if nobody wants it any more."""
    control = Control.objects.filter(run=run).select_related("run", *_ATTACK_CONTEXT).first()
    return control or Twin.objects.filter(run=run).select_related("run", *_CONTEXT).first()


def board_of(part: Twin | Control) -> Board:
    """Everything that the scenario needs. The same call gives the same tokens and shuffles again."""
    twin = part if isinstance(part, Twin) else part.twin
    phase, challenge = twin.phase, twin.phase.challenge
    asked = scoring.deal_of(phase, twin.defense_id, twin.seed)
    released = _dealt_again(phase, twin.defense_id, twin.seed, challenge.dataset.sha256)
    board = Board(
        game=challenge.game,
        table=challenge.dataset.table_path,
        deal=released,
        key=splits.derive(bytes(phase.secret), "run", str(part.run_id)),
        seed=twin.seed,
        previous=twin.previous.result_folder if twin.previous else None,
        resampled=False,
    )
    if isinstance(part, Twin):
        return board
    return replace(board, deal=asked, other=released, release=twin.folder, previous=None)


@lru_cache(maxsize=16)
def _dealt_again(phase: Phase, defense: UUID, seed: int, _data: str) -> Deal:
    """The deal of a twin. Its coins have a key of their own, which no other deal of the phase is made by."""
    dataset = phase.challenge.dataset
    key = splits.derive(bytes(phase.secret), "twin", phase.challenge.slug, phase.kind, str(defense), str(seed))
    return splits.dealt_again(
        scoring.deal_of(phase, defense, seed), tables.read(dataset.table_path), dataset.schema, key=key
    )


def weigh(control: Control, result: Path) -> dict[str, Any]:
    """What an attack took from a twin beyond chance, as columns of a control."""
    found, detail = weighing.weigh(scenario_of(control.attack), board_of(control), result)
    return {"leak": found.leak, "error": found.error, "detail": detail}


def settle(run: Run, verdict: dict[str, Any] | None) -> None:
    """A run is over, well (`verdict`) or with `run.reason`. Joins the transaction that ends it."""
    part = part_of(run)
    if part is None:
        return  # nobody wants it any more
    twin = part if isinstance(part, Twin) else part.twin
    challenge = Challenge.objects.select_for_update().get(pk=twin.phase.challenge_id)
    part = part_of(run)
    if part is None or part.state != Part.State.PENDING:
        return
    twin.phase.refresh_from_db()  # it may have been revealed while the container ran
    if verdict is None:
        part.end(Part.State.FAILED, run.reason)
    elif isinstance(part, Control):
        for column, value in verdict.items():
            setattr(part, column, value)
        part.end(Part.State.DONE)
    elif name := steps.next_name(part.defense, run.step):
        part.previous = run
        _start(part, name)
    else:
        shutil.copytree(run.result_folder, part.folder, dirs_exist_ok=True)
        part.end(Part.State.DONE)
        _pair(part)
    log.info("blind_control_run_ended", run=str(run.pk), entry=str(_entry(part).pk), state=part.state)
    if isinstance(part, Control) and not twin.phase.is_sealed:
        challenge.mark_changed()


def _settle_forgotten(part: Twin | Control) -> None:
    """Writes down the end of a run that the sandbox gave up without being able to tell."""
    run = part.run
    given_up = part.state == Part.State.PENDING and run.state == Run.State.FAILED
    if given_up and _is_older(run.finished_at, _SETTLED_BY_THEN):
        part.end(Part.State.FAILED, run.reason)


def _is_older(moment: datetime | None, pause: timedelta) -> bool:
    return moment is not None and moment < timezone.now() - pause
