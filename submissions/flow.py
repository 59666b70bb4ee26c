"""What follows from what: from the last uploaded byte to the scored entry.

Every function but `run_began` joins its caller's transaction. Events come from uploads, from the check of the image,
and from runs that have ended; each moves the entry on and queues what is due next.
"""

from pathlib import Path
from typing import Any

import structlog
from django.db.models import Q, QuerySet
from django.utils import timezone
from django_q.tasks import async_task

from challenges.models import Challenge, Phase
from sandbox import actions as sandbox
from sandbox.models import Image, Run
from sandbox.reasons import Reason
from submissions import contracts, controls, oversight, pairing, scoring, standings, steps
from submissions.models import Duel, Release, Standing, Step, Submission
from submissions.states import READY, State


def log(submission: Submission) -> Any:
    """A logger that names the entry. What containers print never goes there."""
    return structlog.get_logger("submissions").bind(
        submission=str(submission.pk), challenge=submission.challenge.slug, kind=submission.kind
    )


def lock(challenge: Challenge) -> Challenge:
    """The challenge as it now stands, whose row is held until the transaction ends.

    Every verb takes this lock before it reads an entry: of two that become ready at once one sees the other, and
    none overwrites what the other wrote.
    """
    return Challenge.objects.select_for_update().get(pk=challenge.pk)


def uploaded(submission: Submission) -> None:
    """All bytes are there: the image is checked next."""
    submission.move_to(State.CHECKING)
    submission.challenge.mark_changed()
    async_task("submissions.tasks.check_image", str(submission.pk), cluster="checks")


def image_accepted(submission: Submission, image: Image) -> None:
    """The image is sound: rehearse on the public sample, if it can play at all."""
    submission.image = image
    submission.contract = submission.contract or contracts.of_image(image)
    if refusal := contracts.refusal(submission.challenge, submission.contract):
        submission.contract = ""
        submission.save(update_fields=["image", "contract"])
        fail(submission, Reason.IMAGE_INVALID, detail=refusal)
        return
    submission.save(update_fields=["image", "contract"])
    submission.move_to(State.REHEARSING)
    steps.queue_rehearsal(submission, steps.names(submission)[0])
    log(submission).info("image_accepted", image=image.image_id)
    submission.challenge.mark_changed()


def fail(submission: Submission, reason: Reason | str, *, cause: Reason | str = "", detail: str = "") -> None:
    """Ends the entry with a named reason. `detail` is shown to its team: never pass text from private data."""
    submission.failure_reason, submission.failure_cause, submission.failure_detail = reason, cause, detail
    submission.save(update_fields=["failure_reason", "failure_cause", "failure_detail"])
    submission.move_to(State.FAILED)
    stop(submission)
    log(submission).info("submission_failed", reason=str(reason), cause=str(cause))
    standings.refresh_all(submission.challenge)
    submission.challenge.mark_changed()


def stop(submission: Submission) -> None:
    """Cancels all that an entry has under way or waiting, the duels that others have with it included."""
    _cancel(Step.objects.filter(submission=submission, duel=None))
    stop_duels(submission)


def stop_duels(submission: Submission) -> None:
    """Cancels the duels of an entry that are not over, so that its opponents do not wait for them."""
    controls.stop(submission)
    pending = Duel.objects.pending().filter(Q(attack=submission) | Q(release__submission=submission))
    opponents = Submission.objects.filter(
        Q(pk__in=pending.values("attack")) | Q(pk__in=pending.values("release__submission"))
    )
    waiting = list(opponents.exclude(pk=submission.pk))
    _cancel(Step.objects.filter(duel__in=pending))
    Duel.objects.filter(pk__in=list(pending.values_list("pk", flat=True))).delete()
    for opponent in waiting:
        complete(opponent)


def _cancel(cancelled: QuerySet[Step]) -> None:
    # A run that is being settled right now is held by its worker, who waits for our lock: let it pass.
    runs = Run.objects.select_for_update(skip_locked=True).filter(
        pk__in=list(cancelled.values_list("run", flat=True)), state__in=[Run.State.QUEUED, Run.State.RUNNING]
    )
    for run in runs:
        sandbox.cancel(run=run)


def run_began(step: Step) -> None:
    """A container is about to start: the entry's page shows it, unless nobody may know."""
    if step.phase is not None and step.phase.is_sealed:
        return
    Submission.objects.filter(pk=step.submission_id, state=State.QUEUED).update(state=State.RUNNING)
    step.submission.challenge.mark_changed()


def run_ended(step: Step, run: Run, verdict: dict[str, Any] | None) -> None:
    """A run is over, well (`verdict`) or with `run.reason`: moves its entry on."""
    challenge = lock(step.submission.challenge)
    step.submission.refresh_from_db()
    if step.phase is not None:
        step.phase.refresh_from_db()  # it may have been revealed while the container ran
        if step.duel is not None:
            step.duel.release.phase = step.phase
    if step.duel is not None:
        if not Duel.objects.pending().filter(pk=step.duel.pk).exists():
            return  # one of the two was taken out meanwhile
        _duel_ended(step.duel, run, verdict)
    elif step.submission.state not in (State.REHEARSING, *READY):
        return  # taken out meanwhile
    elif step.is_rehearsal:
        _rehearsal_ended(step, run)
    else:
        _release_step_ended(step, run, verdict)
    if step.phase is None or not step.phase.is_sealed:
        challenge.mark_changed()


def complete(submission: Submission) -> None:
    """Calls the entry scored once nothing that is due for it is open any more, in the phase that judges it."""
    submission.refresh_from_db()
    if submission.state not in (State.QUEUED, State.RUNNING):
        return
    phase = submission.first_phase or submission.challenge.development
    if phase is None or phase.is_sealed:
        return
    if submission.is_defense:
        open_duels = Duel.objects.pending().filter(release__submission=submission, release__phase=phase)
        if submission.releases.filter(phase=phase).count() < phase.seeds or open_duels.exists():
            return
    elif Duel.objects.pending().filter(attack=submission, release__phase=phase).exists():
        return
    elif submission.is_ranked and (reason := failed_everywhere(submission, phase)):
        fail(submission, reason)
        return
    submission.move_to(State.SCORED)
    log(submission).info("submission_scored")


def _rehearsal_ended(step: Step, run: Run) -> None:
    submission = step.submission
    if run.reason == Reason.PLATFORM_FAULT:
        fail(submission, Reason.PLATFORM_FAULT)
    elif run.reason:
        fail(submission, Reason.REHEARSAL_FAILED, cause=run.reason, detail=run.detail)
    elif name := steps.next_name(submission, step.name):
        steps.queue_rehearsal(submission, name, previous=step)
    else:
        _ready(submission)


def _ready(submission: Submission) -> None:
    """The rehearsal went well: the entry takes part from now on, by default in place of the team's oldest one."""
    phase = submission.challenge.current_phase
    if phase is None:
        submission.move_to(State.WITHDRAWN)  # the challenge was closed meanwhile: nothing that was scored gives way
        return
    if phase.is_final:
        _ready_late(submission, phase)
        return
    submission.active = True
    submission.save(update_fields=["active"])
    submission.move_to(State.QUEUED)
    _retire_oldest(submission)
    Standing.objects.get_or_create(submission=submission, phase=phase)
    log(submission).info("submission_ready")
    _begin(submission, phase)


def _ready_late(submission: Submission, final: Phase) -> None:
    """Development is over: the entry plays in the final only, a team's without a rank."""
    submission.first_phase = final
    submission.active = not submission.is_ranked
    submission.save(update_fields=["first_phase", "active"])
    submission.move_to(State.QUEUED)
    run_late(submission, final)


def run_late(submission: Submission, final: Phase) -> None:
    """Lets an entry play in a final whose picks are frozen. What comes of it is known once the final is revealed."""
    submission.late = submission.is_ranked
    submission.save(update_fields=["late"])
    log(submission).info("submission_late")
    if not final.is_sealed:
        Standing.objects.get_or_create(submission=submission, phase=final)
    _begin(submission, final)


def settle_late(submission: Submission) -> None:
    """The final is revealed: a late entry comes to the state that its runs have made."""
    failed = submission.steps.filter(phase=submission.first_phase, duel=None, run__state=Run.State.FAILED).last()
    if failed is not None:
        fail(submission, failed.run.reason)
    else:
        complete(submission)


def _begin(submission: Submission, phase: Phase) -> None:
    """Queues what a ready entry owes in a phase: a run for each seed, or a duel with each release."""
    if submission.is_defense:
        for seed in range(phase.seeds):
            steps.queue_release(submission, steps.names(submission)[0], phase, seed)
    else:
        pairing.pair(submission, phase)
        standings.refresh_attack(submission, phase)
        complete(submission)


def _retire_oldest(submission: Submission) -> None:
    if not submission.is_ranked:
        return
    mine = Submission.objects.active().of_team(submission.team).filter(kind=submission.kind)
    surplus = list(mine.order_by("-created_at")[submission.challenge.active_limit :])
    for entry in surplus:
        Submission.objects.filter(pk=entry.pk).update(active=False)
        stop_duels(entry)
        complete(entry)
    if surplus:
        log(submission).info("older_entries_retired", number=len(surplus))
        standings.refresh_all(submission.challenge)


def _release_step_ended(step: Step, run: Run, verdict: dict[str, Any] | None) -> None:
    submission, phase = step.submission, step.phase
    assert phase is not None
    if run.reason:
        if submission.is_judged_in(phase) and not phase.is_sealed:
            fail(submission, run.reason)  # else the failed run itself says so, to whoever may know
    elif name := steps.next_name(submission, step.name):
        steps.queue_release(submission, name, phase, step.seed, previous=step)
    else:
        assert verdict is not None
        release = Release.objects.create(submission=submission, phase=phase, seed=step.seed, **verdict)
        scoring.keep_release(release, Path(run.result_folder))
        log(submission).info("release_made", seed=step.seed, sha256=release.sha256)
        if Submission.objects.playing(phase).filter(pk=submission.pk).exists():
            pairing.pair(submission, phase)
        standings.refresh_defense(submission, phase)
        complete(submission)


def _duel_ended(duel: Duel, run: Run, verdict: dict[str, Any] | None) -> None:
    duel.finished_at = timezone.now()
    if verdict is None:
        duel.state, duel.reason = Duel.State.FAILED, run.reason
    else:
        duel.state = Duel.State.DONE
        for column, value in verdict.items():
            setattr(duel, column, value)
    attack, release = duel.attack, duel.release
    # A pairing is void under all seeds of its phase, also under those that had no release when it was voided.
    same = Duel.objects.between(attack=attack, defense=release.submission).filter(release__phase=release.phase_id)
    if void := same.exclude(void_reason="").first():
        duel.voided_at, duel.void_reason, duel.voided_by = void.voided_at, void.void_reason, void.voided_by
    duel.save()
    oversight.review(release)
    log(attack).info("duel_ended", defense=str(release.submission_id), seed=release.seed, reason=duel.reason)
    standings.refresh_duel(duel)
    complete(attack)
    complete(release.submission)


def failed_everywhere(attack: Submission, phase: Phase) -> str:
    """The reason why an attack failed in every duel of a phase, or nothing if it held at least one."""
    duels = Duel.objects.filter(attack=attack, release__phase=phase)
    outcomes = duels.exclude(reason=Reason.PLATFORM_FAULT).order_by("pk")
    reasons = list(outcomes.values_list("reason", flat=True))
    return reasons[0] if reasons and all(reasons) else ""


def fight_again(duel: Duel) -> None:
    """Queues a duel once more that a fault of the platform had ended."""
    duel.step.delete()
    duel.state, duel.reason, duel.finished_at = Duel.State.PENDING, "", None
    duel.save()
    steps.queue_duel(duel)
    log(duel.attack).info("duel_again", defense=str(duel.release.submission_id))
