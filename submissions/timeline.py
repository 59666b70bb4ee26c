"""The way of an entry as its team may see it: what is done, what is under way, what went wrong and what to do.

Exact times, memory and details of runs on private data are for organisers; everybody else gets run times in steps of
half a minute, because the time that a run takes on private data is itself a message about that data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from challenges.models import Phase
from sandbox import hopeless
from sandbox.models import Run
from sandbox.reasons import Reason, hint, sentence
from submissions import finals
from submissions.models import Duel, Step, Submission
from submissions.states import State

TIME_STEP = 30  # seconds; of runs on private data
_IN_DEVELOPMENT = {"release__phase__kind": Phase.Kind.DEVELOPMENT}
_STAGES = ("upload", "check", "rehearsal", "private", "duels", "score")


@dataclass(frozen=True)
class RunLine:
    """One container run. `run` itself only for organisers."""

    step: str
    state: str
    label: str
    time: str
    run: Run | None = None


@dataclass(frozen=True)
class Duels:
    """How an entry's duels went; `failures` says why some failed: (sentence, hint, number)."""

    done: int = 0
    failed: int = 0
    pending: int = 0
    failures: Sequence[tuple[str, str, int]] = ()

    @property
    def over(self) -> int:
        return self.done + self.failed

    @property
    def total(self) -> int:
        return self.over + self.pending


@dataclass(frozen=True)
class Moment:
    """A stage of the way: `state` is done, now, failed, stopped or todo."""

    key: str
    title: str
    state: str
    runs: Sequence[RunLine] = ()
    failed: Reason | None = None  # of a final: why it came to no result

    @property
    def why(self) -> str:
        """What went wrong in the final, as a sentence; empty if nothing did."""
        return sentence(self.failed) if self.failed else ""


@dataclass(frozen=True)
class Failure:
    """The named failure: what happened, within what, what to do, and the team's own details."""

    title: str
    sentence: str
    cause: str
    hint: str
    detail: str


@dataclass(frozen=True)
class Timeline:
    moments: Sequence[Moment]
    duels: Duels
    failure: Failure | None = None
    rehearsal: Sequence[Step] = field(default_factory=tuple)
    waits_for_operator: bool = False


def of(submission: Submission, *, exact: bool) -> Timeline:
    """The timeline of an entry; `exact` for organisers only."""
    steps = steps_of(submission)
    rehearsal = [step for step in steps if step.is_rehearsal]
    private = [step for step in steps if step.phase is not None and submission.is_judged_in(step.phase)]
    duels = count_duels(submission)
    stages = [stage for stage in _STAGES if stage != "private" or submission.is_defense]
    reached = _reached(submission, bool(steps), duels)
    runs = {"rehearsal": _lines(rehearsal, exact), "private": _lines(private, exact)}
    moments = [
        Moment(
            stage,
            _title(stage),
            _state(submission, stages.index(stage), stages.index(reached), duels),
            runs.get(stage, ()),
        )
        for stage in stages
    ]
    if moment := _final(submission, [step for step in steps if step not in (*rehearsal, *private)], exact):
        moments.append(moment)
    waiting = hopeless.among(Run.objects.filter(pk__in=submission.steps.known().values("run"))).exists()
    return Timeline(moments, duels, failure_of(submission), rehearsal, waiting)


def _final(submission: Submission, ran: Sequence[Step], exact: bool) -> Moment | None:
    """The final as a stage of an entry that is in one and began before it; its runs only once it is revealed."""
    final = submission.challenge.final
    if final is None or not (submission.picked or submission.late) or submission.is_judged_in(final):
        return None
    if final.is_sealed:
        return Moment("final", _title("final"), "now" if final.is_frozen else "todo")
    failed = finals.failures(final).get(submission.pk)
    return Moment("final", _title("final"), "failed" if failed else "done", _lines(ran, exact), failed)


def steps_of(submission: Submission) -> list[Step]:
    """The steps of an entry alone: its rehearsal and, for a defense, its releases; duels are only counted.

    Nothing of a final that is not revealed.
    """
    return list(submission.steps.known().filter(duel=None).select_related("run", "phase"))


def failure_of(submission: Submission) -> Failure | None:
    """The named failure of an entry, in the reader's language; None for entries that have not failed."""
    if submission.state != State.FAILED or not submission.failure_reason:
        return None
    reason, cause = submission.failure_reason, submission.failure_cause
    return Failure(
        title=str(Reason(reason).label),
        sentence=sentence(reason),
        cause=sentence(cause) if cause else "",
        hint=hint(cause or reason),
        detail=_(submission.failure_detail) if submission.failure_detail else "",
    )


def count_duels(submission: Submission) -> Duels:
    """The duels of an entry in the phase that judges it, as far as its team may know of them."""
    mine = Duel.objects.filter(release__submission=submission) if submission.is_defense else submission.duels.all()
    judged = {"release__phase": submission.first_phase_id} if submission.first_phase_id else _IN_DEVELOPMENT
    rows = list(
        mine.known()
        .filter(**judged)
        .values_list("state", "reason")
        .annotate(number=Count("pk"))
        .order_by("state", "reason")
    )
    number = {state: sum(n for its, _reason, n in rows if its == state) for state in Duel.State.values}
    failures: list[tuple[str, str, int]] = []
    if not submission.is_defense:  # a defense's duel fails by its opponent's fault, which is not its team's to see
        failures = [(sentence(why), hint(why), n) for state, why, n in rows if state == Duel.State.FAILED and why]
    return Duels(number[Duel.State.DONE], number[Duel.State.FAILED], number[Duel.State.PENDING], failures)


def seconds(run: Run, *, exact: bool) -> float | None:
    """How long a container ran; on private data rounded up to half minutes unless `exact`. None until it has ended."""
    if run.seconds is None or exact or not run.private:
        return run.seconds
    return float(max(1, math.ceil(run.seconds / TIME_STEP)) * TIME_STEP)


def run_time(run: Run, *, exact: bool) -> str:
    """`seconds` in words; empty until the run has ended."""
    time = seconds(run, exact=exact)
    if time is None:
        return ""
    if exact or not run.private:
        return _("%(seconds)s s") % {"seconds": number_format(round(time, 1), 1)}
    return _("up to %(seconds)s s") % {"seconds": round(time)}


def _lines(steps: Sequence[Step], exact: bool) -> list[RunLine]:
    return [
        RunLine(
            step.name,
            step.run.state,
            step.run.get_state_display(),
            run_time(step.run, exact=exact),
            step.run if exact else None,
        )
        for step in steps
    ]


def _title(stage: str) -> str:
    return {
        "upload": _("Upload"),
        "check": _("Check of the image"),
        "rehearsal": _("Rehearsal on the public sample"),
        "private": _("Run on the private data"),
        "duels": _("Duels"),
        "score": _("Score"),
        "final": _("Final"),
    }[stage]


def _reached(submission: Submission, has_steps: bool, duels: Duels) -> str:
    """The stage that an entry is in, or was in when it ended."""
    state = State(submission.state)
    plain = {State.UPLOADING: "upload", State.CHECKING: "check", State.REHEARSING: "rehearsal", State.SCORED: "score"}
    if state in plain:
        return plain[state]
    if submission.ready_at is None:
        return _early_stage(submission, has_steps)
    if submission.is_defense and not duels.total and not _has_released(submission):
        return "private"
    return "duels"


def _has_released(submission: Submission) -> bool:
    phase = submission.first_phase or submission.challenge.development
    return phase is not None and not phase.is_sealed and submission.releases.filter(phase=phase).exists()


def _early_stage(submission: Submission, has_steps: bool) -> str:
    """Where an entry ended that never came to a private run."""
    if submission.failure_reason == Reason.REHEARSAL_FAILED or has_steps:
        return "rehearsal"
    upload: Any = getattr(submission, "upload", None)
    return "upload" if upload is not None and not upload.is_complete else "check"


def _state(submission: Submission, stage: int, reached: int, duels: Duels) -> str:
    state = State(submission.state)
    if state == State.SCORED:
        return "now" if duels.pending and stage == reached - 1 else "done"
    if stage != reached:
        return "done" if stage < reached else "todo"
    return {State.FAILED: "failed", State.WITHDRAWN: "stopped", State.DISQUALIFIED: "stopped"}.get(state, "now")
