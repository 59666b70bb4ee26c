"""Joining, entering, quotas, uploads in pieces."""

import io
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.http import UnreadablePostError
from django.utils import timezone

from challenges.models import Challenge
from sandbox.reasons import Reason
from submissions import actions, quotas, tasks, uploads
from submissions.models import Submission, Team, Upload
from submissions.states import State

pytestmark = pytest.mark.django_db


def enter(challenge: Challenge, by: Any, *, size: int = 10, **fields: Any) -> Submission:
    return actions.enter(challenge=challenge, by=by, kind="attack", file_name="a.tar", size=size, **fields)


def test_joining_makes_a_team_of_one(clinic: Challenge, ada: Any) -> None:
    team = actions.join(challenge=clinic, user=ada, team_name="  Team   Ada ")
    assert (team.name, list(team.members.all())) == ("Team Ada", [ada])


@pytest.mark.parametrize(("name", "complaint"), [("A", "2 to 60"), ("team ADA", "Another team"), ("<>", "2 to 60")])
def test_team_names_that_are_refused(clinic: Challenge, teams: Any, carl: Any, name: str, complaint: str) -> None:
    with pytest.raises(actions.Refused, match=complaint):
        actions.join(challenge=clinic, user=carl, team_name=name)


def test_nobody_joins_twice_or_enters_without_joining(clinic: Challenge, teams: Any, ada: Any, carl: Any) -> None:
    with pytest.raises(actions.Refused, match="already"):
        actions.join(challenge=clinic, user=ada, team_name="Second team")
    with pytest.raises(actions.Refused, match="Join"):
        enter(clinic, carl)


def test_a_closed_challenge_takes_nothing(clinic: Challenge, teams: Any, ada: Any) -> None:
    clinic.phases.update(closes_at=timezone.now())
    with pytest.raises(actions.Refused, match="does not take entries"):
        enter(clinic, ada)


def test_only_organisers_enter_anchors_that_fit_their_kind(clinic: Challenge, teams: Any, ada: Any, olga: Any) -> None:
    assert enter(clinic, olga, role="baseline").team is None
    with pytest.raises(actions.Refused, match="Only organisers"):
        enter(clinic, ada, role="baseline")
    with pytest.raises(actions.Refused, match="Baselines are attacks"):
        enter(clinic, olga, role="leaky")


def test_the_daily_quota_counts_what_is_under_way(clinic: Challenge, teams: Any, ada: Any) -> None:
    for _ in range(clinic.daily_quota):
        enter(clinic, ada)
    with pytest.raises(actions.Refused, match="last 24 hours"):
        enter(clinic, ada)


@pytest.mark.parametrize(
    ("reason", "costs_today", "costs_failures"),
    [
        (Reason.REHEARSAL_FAILED, 0, 1),
        (Reason.IMAGE_INVALID, 0, 1),
        (Reason.PLATFORM_FAULT, 0, 0),
        (Reason.CRASHED, 0, 1),
    ],
)
def test_what_a_failure_costs(
    clinic: Challenge, teams: dict[str, Team], ada: Any, reason: Reason, costs_today: int, costs_failures: int
) -> None:
    before = quotas.left(teams["ada"])
    submission = enter(clinic, ada)
    Submission.objects.filter(pk=submission.pk).update(state=State.FAILED, failure_reason=reason)
    after = quotas.left(teams["ada"])
    assert before.today - after.today == costs_today
    assert before.total - after.total == costs_today
    assert before.failures - after.failures == costs_failures


@pytest.mark.parametrize(("size", "complaint"), [(0, "empty"), (10**15, "larger than")])
def test_sizes_that_are_refused(clinic: Challenge, teams: Any, ada: Any, size: int, complaint: str) -> None:
    with pytest.raises(actions.Refused, match=complaint):
        enter(clinic, ada, size=size)


@pytest.fixture
def upload(clinic: Challenge, teams: Any, ada: Any) -> Upload:
    return enter(clinic, ada, size=10).upload


def test_an_upload_in_two_pieces_ends_in_the_check(upload: Upload) -> None:
    uploads.append(upload=upload, offset=0, chunks=[b"01234"])
    assert upload.submission.state == State.UPLOADING
    uploads.append(upload=upload, offset=5, chunks=[b"567", b"89"])
    assert upload.path.read_bytes() == b"0123456789"
    assert Submission.objects.get(pk=upload.submission_id).state == State.CHECKING


@pytest.mark.parametrize("broken", [ConnectionResetError, UnreadablePostError])
def test_what_came_before_a_cut_is_kept(upload: Upload, broken: type[Exception]) -> None:
    def cut() -> Iterator[bytes]:
        yield b"0123"
        raise broken

    uploads.append(upload=upload, offset=0, chunks=cut())
    assert upload.offset == 4
    uploads.append(upload=upload, offset=4, chunks=[b"456789"])
    assert upload.path.read_bytes() == b"0123456789"


def test_a_wrong_offset_changes_nothing(upload: Upload) -> None:
    uploads.append(upload=upload, offset=0, chunks=[b"0123"])
    with pytest.raises(uploads.UploadConflict, match="byte 4"):
        uploads.append(upload=upload, offset=2, chunks=[b"xx"])
    assert upload.path.read_bytes() == b"0123"


def test_two_writers_do_not_mix(upload: Upload) -> None:
    def second_writer() -> Iterator[bytes]:
        with pytest.raises(uploads.UploadBusy):
            uploads.append(upload=Upload.objects.get(pk=upload.pk), offset=0, chunks=[b"yyyyyyyyyy"])
        yield b"0123456789"

    uploads.append(upload=upload, offset=0, chunks=second_writer())
    assert upload.path.read_bytes() == b"0123456789"


def test_more_bytes_than_announced_are_refused_and_not_kept(upload: Upload) -> None:
    with pytest.raises(uploads.UploadTooLong):
        uploads.append(upload=upload, offset=0, chunks=[b"0123456789", b"!"])
    upload.refresh_from_db()
    assert (upload.offset, upload.path.stat().st_size) == (0, 0)


def test_giving_up_frees_the_disk_and_the_quota(
    upload: Upload, teams: dict[str, Team], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    uploads.append(upload=upload, offset=0, chunks=[b"0123"])
    path = upload.path
    with django_capture_on_commit_callbacks(execute=True):
        uploads.give_up(upload=upload)
    assert not path.exists()
    assert quotas.left(teams["ada"]).today == teams["ada"].challenge.daily_quota


def test_something_that_is_no_image_fails_with_a_sentence(upload: Upload) -> None:
    uploads.append(upload=upload, offset=0, chunks=[b"not a tar!"])
    tasks.check_image(str(upload.submission_id))
    submission = Submission.objects.get(pk=upload.submission_id)
    assert (submission.state, submission.failure_reason) == (State.FAILED, Reason.IMAGE_INVALID)
    assert submission.failure_detail
    assert not Upload.objects.exists()


def test_a_dead_upload_is_forgotten_after_a_week(upload: Upload) -> None:
    Upload.objects.update(updated_at=timezone.now() - timedelta(days=8))
    assert uploads.discard_forgotten() == 1
    assert Submission.objects.get(pk=upload.submission_id).state == State.WITHDRAWN


def test_reading_a_file_object_in_pieces(upload: Upload) -> None:
    source = io.BytesIO(b"0123456789")
    uploads.append(upload=upload, offset=0, chunks=iter(lambda: source.read(3), b""))
    assert upload.is_complete


def test_withdrawing_while_uploading_frees_the_disk(
    upload: Upload, ada: Any, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    uploads.append(upload=upload, offset=0, chunks=[b"0123"])
    path = upload.path
    with django_capture_on_commit_callbacks(execute=True):
        actions.withdraw(submission=upload.submission, by=ada)
    assert not path.exists()
    assert not Upload.objects.exists()


def test_an_entry_withdrawn_during_a_write_stays_withdrawn(upload: Upload, ada: Any) -> None:
    def withdrawn_meanwhile() -> Iterator[bytes]:
        yield b"01234"
        actions.withdraw(submission=upload.submission, by=ada)
        yield b"56789"

    uploads.append(upload=upload, offset=0, chunks=withdrawn_meanwhile())
    assert Submission.objects.get().state == State.WITHDRAWN


def test_organisers_do_not_play(clinic: Challenge, olga: Any) -> None:
    with pytest.raises(actions.Refused, match="take no part"):
        actions.join(challenge=clinic, user=olga, team_name="Team Olga")


@pytest.mark.parametrize(
    ("given", "file_name", "shown"),
    [
        ("A/B test <i>", "x.tar", "A/B test i"),
        ("", "anomed/lira:latest.tar.gz", "lira"),
        ("", "../../etc/passwd", "passwd"),
        ("", "💥", "unnamed"),
    ],
)
def test_names_are_taken_as_given_or_from_the_file(
    clinic: Challenge, teams: Any, ada: Any, given: str, file_name: str, shown: str
) -> None:
    entry = actions.enter(challenge=clinic, by=ada, kind="attack", name=given, file_name=file_name, size=10)
    assert entry.name == shown
