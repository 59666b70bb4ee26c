"""What participants do: join, enter, choose, pick, withdraw. One function per verb; each refuses with a sentence."""

import math
import re
import shutil
from pathlib import PurePath
from typing import Any

from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from challenges.models import Challenge
from submissions import contracts, flow, oversight, pairing, quotas, standings, uploads
from submissions.models import Duel, Membership, Submission, Team, Upload
from submissions.states import OVER, READY, State

# A part of the disk that uploads never touch: the database and running containers need room to go on.
_DISK_RESERVE = 5 * 10**9  # bytes
_NOT_IN_NAMES = re.compile(r"[^\w .:+()/-]+")
_LONGEST_REASON = 300  # characters of the reason why a duel is void
_ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar")


class Refused(ValueError):
    """What was asked for is not possible; the message is a translated sentence for the person who asked."""


@transaction.atomic
def join(*, challenge: Challenge, user: Any, team_name: str) -> Team:
    """Enters a person into a challenge as a team of one; they have accepted the rules."""
    name = " ".join(_NOT_IN_NAMES.sub(" ", team_name).split())
    if challenge.current_phase is None:
        raise Refused(_("This challenge does not take entries now."))
    if challenge.is_organiser(user):
        raise Refused(_("Organisers see the private data: they enter anchors and baselines, and take no part."))
    if not 2 <= len(name) <= 60:
        raise Refused(_("A team name has 2 to 60 letters, digits or simple signs."))
    if Membership.objects.filter(challenge=challenge, user=user).exists():
        raise Refused(_("You take part in this challenge already."))
    if Team.objects.filter(challenge=challenge, name__iexact=name).exists():
        raise Refused(_("Another team has this name. Choose a different one."))
    try:
        with transaction.atomic():
            team = Team.objects.create(challenge=challenge, name=name)
            Membership.objects.create(team=team, challenge=challenge, user=user)
    except IntegrityError:  # a second browser was faster
        raise Refused(_("You take part in this challenge already, or the name was just taken.")) from None
    return team


@transaction.atomic
def enter(
    *,
    challenge: Challenge,
    by: Any,
    kind: str,
    file_name: str,
    size: int,
    name: str = "",
    note: str = "",
    role: str = Submission.Role.ENTRY,
    declared_epsilon: float | None = None,
    declared_delta: float | None = None,
    contract: str = "",
) -> Submission:
    """Opens an entry, whose image of `size` bytes is then uploaded to `submission.upload`.

    Anchors and baselines (`role`) are entered by an organiser and belong to no team. A defense may declare that it is
    (epsilon, delta)-differentially private; readers are told that nobody verified it. Without a `contract` the image's
    label says which one it keeps to.
    """
    challenge = flow.lock(challenge)  # two browsers cannot both take the last place of a quota
    if challenge.current_phase is None:
        raise Refused(_("This challenge does not take entries now."))
    team = None if role != Submission.Role.ENTRY else Team.objects.filter(challenge=challenge, members=by).first()
    if role != Submission.Role.ENTRY:
        _check_role(challenge=challenge, by=by, kind=kind, role=role)
    elif team is None:
        raise Refused(_("Join the challenge before you enter something."))
    elif refusal := quotas.left(team).refusal:
        raise Refused(refusal)
    _check_size(size)
    _check_guarantee(kind, declared_epsilon, declared_delta)
    if contract and (refusal := contracts.refusal(challenge, contract)):
        raise Refused(refusal)
    submission = Submission.objects.create(
        challenge=challenge,
        team=team,
        kind=kind,
        role=role,
        contract=contract,
        name=_clean_name(name) or _clean_name(_stem(file_name)) or _("unnamed"),
        note=note,
        declared_epsilon=declared_epsilon,
        declared_delta=declared_delta,
        created_by=by,
    )
    Upload.objects.create(submission=submission, file_name=file_name[:200], size=size)
    return submission


@transaction.atomic
def withdraw(*, submission: Submission, by: Any) -> None:
    """Takes the entry out of all further duels. Scores that it already has stay on record, off the boards."""
    flow.lock(submission.challenge)
    submission.refresh_from_db()
    if refusal := withdrawal_obstacle(submission):
        raise Refused(refusal)
    _take_out(submission, State.WITHDRAWN, by)


def withdrawal_obstacle(submission: Submission) -> str:
    """Why a team cannot withdraw an entry now; "" if it can.

    Others' results rest on the attacks that they met: once these are settled nobody but an organiser takes one out.
    """
    challenge = submission.challenge
    final = challenge.final
    if submission.state in OVER and submission.state != State.SCORED:
        return _("This entry is over already.")
    if not submission.is_ranked or submission.state not in READY:
        return ""
    if challenge.status == Challenge.Status.CLOSED:
        return _("The challenge is closed: what takes part is settled.")
    if submission.picked and final is not None and final.revealed_at is not None:
        return _("The results are revealed already.")
    return ""


@transaction.atomic
def disqualify(*, submission: Submission, by: Any) -> None:
    """An organiser takes an entry off the boards for breaking the rules."""
    flow.lock(submission.challenge)
    submission.refresh_from_db()
    if not submission.challenge.is_organiser(by):
        raise Refused(_("Only organisers of the challenge can disqualify an entry."))
    if submission.state in (State.FAILED, State.DISQUALIFIED):
        raise Refused(_("This entry is over already."))
    _take_out(submission, State.DISQUALIFIED, by)


@transaction.atomic
def choose(*, submission: Submission, active: bool, by: Any) -> None:
    """Puts a rehearsed entry into the duels, or takes it out without giving it up."""
    challenge = flow.lock(submission.challenge)
    submission.refresh_from_db()
    phase = challenge.current_phase
    if phase is None:
        raise Refused(_("The challenge is closed: what takes part is settled."))
    if phase.is_final:
        raise Refused(_("The development phase is over: what takes part in it is settled."))
    if submission.state not in READY:
        raise Refused(_("Only entries that passed their rehearsal can be chosen."))
    if submission.active == active:
        return
    if active:
        others = Submission.objects.active().of_team(submission.team).filter(challenge=challenge, kind=submission.kind)
        if submission.is_ranked and others.count() >= challenge.active_limit:
            raise Refused(
                _("Your team has %(limit)s active entries of this kind. Take one out first.")
                % {"limit": challenge.active_limit}
            )
    Submission.objects.filter(pk=submission.pk).update(active=active)
    submission.active = active
    flow.log(submission).info("submission_chosen", active=active, by=by.pk)
    if active:
        pairing.pair(submission, phase)
    else:
        flow.stop_duels(submission)
        flow.complete(submission)
    standings.refresh_all(challenge)
    challenge.mark_changed()


@transaction.atomic
def void_duel(*, duel: Duel, reason: str, by: Any) -> None:
    """An organiser takes a duel out of all scores, with a reason that everybody reads; `unvoid_duel` puts it back.

    The same attack's duels with the defense under the other seeds of the phase go with it: they are one cell of the
    matrix. Boards, intervals and flags follow from what is stored; nothing runs again.
    """
    said = " ".join(reason.split())
    if not said:
        raise Refused(_("Say why: everybody reads the reason in the matrix."))
    if len(said) > _LONGEST_REASON:
        raise Refused(_("Say it in %(most)s characters: it stands in the matrix.") % {"most": _LONGEST_REASON})
    duels = _judged(duel, by)
    if any(one.void_reason for one in duels):
        raise Refused(_("This duel is void already."))
    if any(one.state == Duel.State.PENDING for one in duels):
        raise Refused(_("Wait until this duel is over under every seed."))
    _decide(duels, by, voided_at=timezone.now(), void_reason=said, voided_by=by)


@transaction.atomic
def unvoid_duel(*, duel: Duel, by: Any) -> None:
    """Takes the voiding of a duel back, under all seeds: it counts again as if nothing had been."""
    duels = _judged(duel, by)
    if not any(one.void_reason for one in duels):
        raise Refused(_("This duel is not void."))
    _decide(duels, by, voided_at=None, void_reason="", voided_by=None)


def _judged(duel: Duel, by: Any) -> list[Duel]:
    """The duels of a pairing under an organiser's hand, with their challenge held."""
    challenge = flow.lock(duel.attack.challenge)
    if not challenge.is_organiser(by):
        raise Refused(_("Only organisers of the challenge can void a duel."))
    return oversight.pairing_of(duel)


def _decide(duels: list[Duel], by: Any, **columns: Any) -> None:
    Duel.objects.filter(pk__in=[duel.pk for duel in duels]).update(**columns)
    first, reason = duels[0], columns["void_reason"]
    log = flow.log(first.attack)
    log.info("duel_voided" if reason else "duel_unvoided", duels=[duel.pk for duel in duels], by=by.pk)
    for duel in duels:
        duel.refresh_from_db()
        LogEntry.objects.create(
            user=by,
            content_type=ContentType.objects.get_for_model(Duel),
            object_id=str(duel.pk),
            object_repr=str(duel)[:200],
            action_flag=CHANGE,
            change_message=f"void: {reason}" if reason else "void taken back",
        )
        oversight.review(duel.release)
    standings.refresh_duel(first)
    if not first.release.phase.is_sealed:
        first.attack.challenge.mark_changed()


@transaction.atomic
def pick(*, submission: Submission, picked: bool, by: Any) -> None:
    """Picks a rehearsed entry for the final, or takes the pick back, until the picks are frozen."""
    challenge = flow.lock(submission.challenge)
    submission.refresh_from_db()
    if challenge.final is None:
        raise Refused(_("This challenge has no final."))
    if not submission.is_ranked:
        raise Refused(_("Anchors and baselines are in the final as long as they are active."))
    if submission.state not in READY:
        raise Refused(_("Only entries that passed their rehearsal can be picked."))
    if challenge.final.is_frozen or challenge.current_phase is None or challenge.current_phase.is_final:
        raise Refused(_("The picks for the final are frozen."))
    if submission.picked == picked:
        return
    others = Submission.objects.of_team(submission.team).filter(kind=submission.kind, state__in=READY, picked=True)
    if picked and others.count() >= challenge.active_limit:
        raise Refused(
            _("Your team has picked %(limit)s entries of this kind. Take one pick back first.")
            % {"limit": challenge.active_limit}
        )
    submission.picked = picked
    submission.save(update_fields=["picked"])
    flow.log(submission).info("submission_picked", picked=picked, by=by.pk)
    challenge.mark_changed()


@transaction.atomic
def run_late(*, submission: Submission, by: Any) -> None:
    """Lets a rehearsed entry that was not picked play in the final whose picks are frozen, without a rank."""
    challenge = flow.lock(submission.challenge)
    submission.refresh_from_db()
    final = challenge.current_phase
    if final is None or not final.is_final or not final.is_frozen:
        raise Refused(_("There is no final that takes late entries now."))
    if not submission.is_ranked:
        raise Refused(_("Anchors and baselines are in the final as long as they are active."))
    if submission.state not in READY:
        raise Refused(_("Only entries that passed their rehearsal can run in the final."))
    if submission.picked or submission.late:
        raise Refused(_("This entry is in the final already."))
    others = Submission.objects.of_team(submission.team).filter(kind=submission.kind, late=True, first_phase=None)
    if others.count() >= challenge.active_limit:
        raise Refused(
            _("Your team has let %(limit)s older entries of this kind run in the final; more are not possible.")
            % {"limit": challenge.active_limit}
        )
    flow.log(submission).info("submission_run_late", by=by.pk)
    flow.run_late(submission, final)
    challenge.mark_changed()


def _take_out(submission: Submission, state: State, by: Any) -> None:
    submission.move_to(state)
    flow.stop(submission)
    if upload := Upload.objects.filter(submission=submission).first():
        uploads.discard(upload)
    flow.log(submission).info("submission_taken_out", state=state, by=by.pk)
    standings.refresh_all(submission.challenge)
    submission.challenge.mark_changed()


def _check_role(*, challenge: Challenge, by: Any, kind: str, role: str) -> None:
    if not challenge.is_organiser(by):
        raise Refused(_("Only organisers of the challenge enter anchors and baselines."))
    if (role == Submission.Role.BASELINE) != (kind == Submission.Kind.ATTACK):
        raise Refused(_("Baselines are attacks; anchors are defenses."))


def _check_guarantee(kind: str, epsilon: float | None, delta: float | None) -> None:
    if epsilon is None and delta is None:
        return
    if kind != Submission.Kind.DEFENSE:
        raise Refused(_("Only a defense can declare differential privacy."))
    if epsilon is None or not 0 < epsilon < math.inf:
        raise Refused(_("Epsilon is a number above 0."))
    if delta is not None and not 0 <= delta < 1:
        raise Refused(_("Delta is at least 0 and less than 1."))


def _check_size(size: int) -> None:
    most: int = settings.SANDBOX["max_archive_bytes"]
    if size < 1:
        raise Refused(_("The file is empty."))
    if size > most:
        raise Refused(_("The file is larger than %(most)s GB.") % {"most": round(most / 10**9, 1)})
    if shutil.disk_usage(settings.PRIVATE_ROOT).free < size + _DISK_RESERVE:
        raise Refused(_("The server has no room for this file now. Its operator has been told; try again later."))


def _stem(file_name: str) -> str:
    base = PurePath(file_name.strip()).name
    for ending in _ARCHIVE_ENDINGS:
        base = base.removesuffix(ending)
    return base.removesuffix(":latest")


def _clean_name(name: str) -> str:
    return " ".join(_NOT_IN_NAMES.sub(" ", name).split())[:80]
