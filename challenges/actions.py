"""Every write to challenges: one function per verb, atomic, refused with a sentence when it is not allowed.

Who may call them is decided before (permissions.py); `by` is who did it, for the history.
"""

import traceback
from collections.abc import Iterable
from typing import Any

import structlog
from django.core.files import File
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django_q.tasks import async_task

from challenges import checks, finals, locks
from challenges.files import remove_later
from challenges.findings import Finding
from challenges.models import Challenge, CheckReport, Dataset, Phase
from challenges.schema import Role
from challenges.uploads import StagedSample, StagedTable

log = structlog.get_logger(__name__)


class Refused(ValueError):
    """An action cannot be done now; the message is a translated sentence that says why."""


@transaction.atomic
def save_challenge(*, challenge: Challenge, by: Any, reason: str = "") -> Challenge:
    """Stores an organiser's edits. Whoever creates a challenge becomes its organiser.

    Of a published challenge only texts and quotas can be changed: else Refused.
    """
    if challenge.pk:
        stored = _locked(challenge)
        if problem := locks.challenge_problem(stored, challenge):
            raise Refused(problem)
        for name in ("status", "version", "published_at", "closed_at"):  # not the organiser's to edit
            setattr(challenge, name, getattr(stored, name))
        _save(challenge, by, reason)
    else:
        _save(challenge, by, reason)
        if by is not None:
            challenge.organisers.add(by)
    challenge.mark_changed()
    return challenge


@transaction.atomic
def set_organisers(*, challenge: Challenge, organisers: Iterable[Any]) -> None:
    """Says who organises the challenge; there is always somebody."""
    people = list(organisers)
    if not people:
        raise Refused(_("A challenge needs at least one organiser."))
    challenge.organisers.set(people)


@transaction.atomic
def save_phase(*, phase: Phase, by: Any) -> Phase:
    """Adds or changes a phase. Once the challenge is published only dates that still lie ahead can be changed."""
    challenge = _locked(phase.challenge)
    stored = Phase.objects.get(pk=phase.pk) if phase.pk else None
    if problem := locks.phase_problem(challenge, stored, phase):
        raise Refused(problem)
    _save(phase, by)
    challenge.mark_changed()
    return phase


@transaction.atomic
def delete_phase(*, phase: Phase) -> None:
    """Removes a phase from a draft."""
    if problem := locks.phase_problem(_locked(phase.challenge), phase, None):
        raise Refused(problem)
    phase.delete()


@transaction.atomic
def set_data(*, challenge: Challenge, table: StagedTable, by: Any, read_again: bool = False) -> Dataset:
    """Gives a draft its private table and a generated sample, in place of what it had. The anchors go: check again.

    `read_again` says that the file is the one that was uploaded before.
    """
    stored = _draft(challenge)
    dataset = Dataset.objects.filter(challenge=stored).first() or Dataset(challenge=stored)
    _put(dataset.source, f"source{table.source.suffix}", table.source)
    _put(dataset.table, "table.parquet", table.table)
    if not read_again:
        dataset.uploaded_at = timezone.now()
    dataset.file_name = table.file_name
    dataset.sha256 = table.sha256
    dataset.rows = table.profile.rows
    dataset.profile = {key: value for key, value in table.profile.to_json().items() if key != "schema"}
    dataset.schema_json = table.profile.schema.to_json()
    _use_sample(dataset, table.sample)
    dataset.save()
    stored.trivial_utility = stored.reference_utility = None
    _save(stored, by, _("data uploaded"))
    challenge.refresh_from_db()
    log.info("data uploaded", challenge=stored.slug, by=getattr(by, "pk", None), rows=dataset.rows)
    return dataset


@transaction.atomic
def set_roles(*, challenge: Challenge, roles: dict[str, Role], by: Any) -> Dataset:
    """Gives columns of a draft another role. Target and patient id are chosen when a table is read: set_data."""
    stored = _draft(challenge)
    dataset: Dataset = stored.dataset
    schema = dataset.schema
    for name, role in roles.items():
        if schema.column(name).role != role:
            schema = schema.with_role(name, role)
    dataset.schema_json = schema.to_json()
    for facts in dataset.profile["columns"]:
        facts["role"] = schema.column(facts["name"]).role
    dataset.save()
    _save(stored, by, _("roles of columns chosen"))
    challenge.refresh_from_db()
    return dataset


@transaction.atomic
def set_sample(*, challenge: Challenge, sample: StagedSample, by: Any) -> Dataset:
    """Gives a draft another public sample."""
    stored = _draft(challenge)
    dataset: Dataset = stored.dataset
    _use_sample(dataset, sample)
    dataset.save()
    _save(stored, by, _("public sample replaced"))
    challenge.refresh_from_db()
    return dataset


def check_obstacle(challenge: Challenge) -> str:
    """Why the check cannot be run now; "" if it can."""
    if challenge.status != Challenge.Status.DRAFT:
        return _("The challenge is published already.")
    report = challenge.reports.first()
    if report is not None and report.is_running:
        return _("The check is running.")
    return ""


def publish_obstacle(challenge: Challenge) -> str:
    """Why the challenge cannot be published now; "" if it can."""
    if challenge.status != Challenge.Status.DRAFT:
        return _("The challenge is published already.")
    report = challenge.reports.first()
    if report is None:
        return _("Run the check first.")
    if report.is_running:
        return _("The check is running.")
    if report.state != CheckReport.State.PASSED:
        return _("The check has not passed. Mend what its report names, then run it again.")
    if not is_current(report):
        return _("Data or settings were changed after the check. Run it again.")
    late = [finding for finding in checks.look_at_calendar(challenge) if finding.level == "error"]
    return late[0].text if late else ""


def is_current(report: CheckReport) -> bool:
    """Whether a report is about the data and the settings that its challenge has now."""
    return report.fingerprint == checks.fingerprint(report.challenge)


def close_obstacle(challenge: Challenge) -> str:
    """Why the challenge cannot be closed now; "" if it can."""
    return "" if challenge.status == Challenge.Status.PUBLISHED else _("Only a published challenge can be closed.")


@transaction.atomic
def start_check(*, challenge: Challenge, by: Any) -> CheckReport:
    """Has the check run in the background; the report says when it is done."""
    report = _open_report(challenge)
    async_task("challenges.tasks.check", report.pk, cluster="web")
    log.info("check started", challenge=challenge.slug, by=getattr(by, "pk", None))
    return report


def check_now(*, challenge: Challenge) -> CheckReport:
    """Runs the check and waits for it: about a minute for 5,000 records."""
    return run_check(report=_open_report(challenge))


def run_check(*, report: CheckReport) -> CheckReport:
    """Does the work of a report that was opened. A fault of ours ends it as failed, so that nobody waits for ever."""
    challenge = report.challenge
    try:
        outcome = checks.run(challenge)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = [f"{frame.filename}:{frame.lineno}" for frame in frames]  # without its message, which may quote values
        log.error("check broke down", challenge=challenge.slug, error=type(error).__name__, where=where)
        outcome = checks.Outcome([Finding("error", "fault")])
    return _finish_check(report=report, outcome=outcome)


@transaction.atomic
def publish(*, challenge: Challenge, by: Any) -> Challenge:
    """Opens a checked draft to the public. A development phase without a beginning begins now."""
    stored = _locked(challenge)
    if problem := publish_obstacle(stored):
        raise Refused(problem)
    stored.status, stored.published_at = Challenge.Status.PUBLISHED, timezone.now()
    _save(stored, by, _("published"))
    for phase in stored.phases.filter(opens_at=None, kind=Phase.Kind.DEVELOPMENT):
        phase.opens_at = stored.published_at
        _save(phase, by)
    stored.mark_changed()
    log.info("challenge published", challenge=stored.slug, by=getattr(by, "pk", None))
    return _refreshed(challenge)


@transaction.atomic
def freeze(*, challenge: Challenge, by: Any) -> Challenge:
    """Settles which entries are in the final, and ends the development phase if it still goes on.

    A final without a beginning begins now. `by` is None where the calendar does it.
    """
    stored = _locked(challenge)
    if problem := finals.freeze_obstacle(stored):
        raise Refused(problem)
    now, development, final = timezone.now(), stored.development, stored.final
    assert final is not None  # else there was an obstacle
    if development is not None and (development.closes_at is None or development.closes_at > now):
        development.closes_at = now
        _save(development, by, _("ended with the freezing of the picks"))
    final.frozen_at = now
    final.opens_at = final.opens_at or now
    _save(final, by, _("picks frozen"))
    finals.conductor().freeze(final)
    stored.mark_changed()
    log.info("picks frozen", challenge=stored.slug, by=getattr(by, "pk", None))
    return _refreshed(challenge)


@transaction.atomic
def repeat_faults(*, challenge: Challenge, by: Any) -> int:
    """Runs again what the platform spoilt in a final that is not revealed yet; returns how many runs."""
    stored = _locked(challenge)
    final = stored.sealed_final
    if final is None or not final.is_frozen:
        raise Refused(_("There is no final under way."))
    number = finals.conductor().repeat_faults(final)
    if not number:
        raise Refused(_("No run of the final was spoilt by the platform."))
    _save(final, by, _("runs repeated: %(number)s") % {"number": number})
    log.info("final runs repeated", challenge=stored.slug, by=getattr(by, "pk", None), number=number)
    return number


@transaction.atomic
def reveal(*, challenge: Challenge, by: Any, reason: str = "") -> Challenge:
    """Shows the results of the final to everybody.

    Where the platform spoilt runs that cannot be repeated, only with a public `reason`: such duels become void.
    """
    stored, said = _locked(challenge), " ".join(reason.split())
    if problem := finals.reveal_obstacle(stored):
        raise Refused(problem)
    final = stored.final
    assert final is not None  # else there was an obstacle
    if problem := finals.spoilt(stored):
        if not said:
            raise Refused(problem)
        if len(said) > finals.LONGEST_NOTE:
            raise Refused(_("Say it in %(most)s characters: it stands on the boards.") % {"most": finals.LONGEST_NOTE})
        finals.conductor().give_up_faults(final, reason=said, by=by)
        final.reveal_note = said
    final.revealed_at = timezone.now()
    _save(final, by, _("results revealed"))
    finals.conductor().reveal(final)
    stored.mark_changed()
    log.info("final revealed", challenge=stored.slug, by=getattr(by, "pk", None))
    return _refreshed(challenge)


@transaction.atomic
def close(*, challenge: Challenge, by: Any) -> Challenge:
    """Ends a published challenge: no entry is taken any more, the boards stay."""
    stored = _locked(challenge)
    if problem := close_obstacle(stored):
        raise Refused(problem)
    stored.status, stored.closed_at = Challenge.Status.CLOSED, timezone.now()
    _save(stored, by, _("closed"))
    stored.mark_changed()
    log.info("challenge closed", challenge=stored.slug, by=getattr(by, "pk", None))
    return _refreshed(challenge)


@transaction.atomic
def delete_challenge(*, challenge: Challenge) -> None:
    """Deletes a draft with its data, or a closed challenge with everything in it."""
    if _locked(challenge).status == Challenge.Status.PUBLISHED:
        raise Refused(_("The challenge is open. Close it first."))
    challenge.delete()


# ----------------------------------------------------------------------------------------------------------------------


def _locked(challenge: Challenge) -> Challenge:
    """The stored challenge, held against others until the transaction ends."""
    return Challenge.objects.select_for_update().get(pk=challenge.pk)


def _draft(challenge: Challenge) -> Challenge:
    stored = _locked(challenge)
    if stored.status != Challenge.Status.DRAFT:
        raise Refused(_("The challenge is published: its data cannot be changed any more."))
    return stored


def _refreshed(challenge: Challenge) -> Challenge:
    challenge.refresh_from_db()
    return challenge


def _save(thing: Any, by: Any, reason: str = "") -> None:
    """Saves, and leaves a line in the history that says who and why."""
    thing._history_user = by
    thing._change_reason = reason or None
    thing.save()


def _put(field: Any, name: str, path: Any) -> None:
    """Stores a file in place of the one that the field had, which goes when the transaction is certain."""
    remove_later(field.storage, field.name or "")
    with path.open("rb") as content:
        field.save(name, File(content), save=False)


def _use_sample(dataset: Dataset, sample: StagedSample | None) -> None:
    if sample is None:
        remove_later(dataset.sample.storage, dataset.sample.name or "")
        dataset.sample, dataset.sample_rows, dataset.sample_sha256 = "", 0, ""
        return
    _put(dataset.sample, "sample.parquet", sample.path)
    dataset.sample_rows, dataset.sample_sha256, dataset.sample_origin = sample.rows, sample.sha256, sample.origin


@transaction.atomic
def _open_report(challenge: Challenge) -> CheckReport:
    stored = _locked(challenge)
    if problem := check_obstacle(stored):
        raise Refused(problem)
    return CheckReport.objects.create(challenge=stored, fingerprint=checks.fingerprint(stored))


@transaction.atomic
def _finish_check(*, report: CheckReport, outcome: checks.Outcome) -> CheckReport:
    """Writes the findings down, and the anchors to the challenge if it is still the one that was checked."""
    challenge = _locked(report.challenge)
    findings = list(outcome.findings)
    if checks.fingerprint(challenge) != report.fingerprint:
        findings.append(Finding("error", "changed"))
    elif outcome.anchors is not None:
        challenge.trivial_utility, challenge.reference_utility = outcome.anchors.u0, outcome.anchors.u1
        _save(challenge, None, _("anchors computed"))
    failed = any(finding.level == "error" for finding in findings)
    report.state = CheckReport.State.FAILED if failed else CheckReport.State.PASSED
    report.items = [finding.to_json() for finding in findings]
    report.finished_at = timezone.now()
    report.save()
    return report
