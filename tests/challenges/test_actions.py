"""What organisers do to challenges, step by step, and what they are refused."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.utils import timezone
from django_q.models import OrmQ

from anomed_site.models import User
from challenges import actions, child, locks, tasks, uploads
from challenges.actions import Refused
from challenges.models import PATIENCE, Challenge, CheckReport, Dataset, Phase
from challenges.permissions import ORGANISERS
from challenges.tables import TableError
from tests.challenges.conftest import clinic
from tests.challenges.organisers import checked, clinic_csv, csv_of, give_data, new_challenge, small_draft

pytestmark = pytest.mark.django_db


@pytest.fixture
def draft(olga: User) -> Challenge:
    return small_draft(olga)


@pytest.fixture
def published(draft: Challenge, olga: User) -> Challenge:
    checked(draft)
    return actions.publish(challenge=draft, by=olga)


@pytest.fixture
def on_the_way(draft: Challenge, olga: User) -> Challenge:
    """Published, with a final of three seeds to come."""
    actions.save_phase(phase=Phase(challenge=draft, kind="final", seeds=3), by=olga)
    checked(draft)
    return actions.publish(challenge=draft, by=olga)


# Data ------------------------------------------------------------------------------------------------------


def test_data_come_with_a_profile_and_a_sample_without_real_patients(draft: Challenge) -> None:
    dataset = draft.dataset
    assert (dataset.rows, dataset.sample_rows) == (599, 400)  # one row of 600 occurs twice
    assert dataset.schema.target == "diabetes"
    assert dataset.schema.column("age").role == "quasi-identifier"
    assert [column["name"] for column in dataset.profile["columns"]] == [c.name for c in dataset.schema.columns]
    assert dataset.table_path.stat().st_mode & 0o077 == 0


@pytest.mark.django_db(transaction=True)
def test_replaced_data_leave_no_file_behind(olga: User) -> None:
    challenge = small_draft(olga)
    before = _files(challenge.dataset)
    assert all(path.is_file() for path in before)
    give_data(challenge, csv_of(clinic(500).drop(columns=["stage", "days"])), target="diabetes")
    assert not any(path.exists() for path in before)
    after = _files(Dataset.objects.get())
    assert all(path.is_file() for path in after)
    actions.delete_challenge(challenge=challenge)
    assert not any(path.exists() for path in after)


def _files(dataset: Dataset) -> list[Path]:
    return [Path(file.path) for file in (dataset.source, dataset.table, dataset.sample)]


def test_new_data_forget_the_anchors(draft: Challenge) -> None:
    checked(draft)
    assert draft.reference_utility is not None
    give_data(draft, csv_of(clinic(500).drop(columns=["stage", "days"])), target="diabetes")
    assert draft.reference_utility is None
    assert actions.publish_obstacle(draft) == "Data or settings were changed after the check. Run it again."


def test_roles_change_without_another_reading(draft: Challenge, olga: User) -> None:
    table = draft.dataset.table.name
    actions.set_roles(challenge=draft, roles={"age": "feature", "glucose": "secret"}, by=olga)
    dataset = Dataset.objects.get()
    assert dataset.schema.column("glucose").role == "secret"
    assert dataset.schema.column("age").role == "feature"
    assert {facts["name"]: facts["role"] for facts in dataset.profile["columns"]}["glucose"] == "secret"
    assert dataset.table.name == table
    with pytest.raises(TableError, match="chosen when the table is read"):
        actions.set_roles(challenge=draft, roles={"age": "target"}, by=olga)


def test_the_upload_date_is_that_of_the_file(draft: Challenge, olga: User) -> None:
    uploaded = draft.dataset.uploaded_at
    actions.set_roles(challenge=draft, roles={"age": "secret"}, by=olga)
    assert Dataset.objects.get().uploaded_at == uploaded
    give_data(draft, clinic_csv(), by=olga, target="diabetes")
    assert Dataset.objects.get().uploaded_at > uploaded


def test_a_long_file_name_is_cut_and_keeps_its_suffix(olga: User) -> None:
    challenge = new_challenge(olga)
    give_data(challenge, clinic_csv(), f"{'patients ' * 40}.csv", target="diabetes")
    name = challenge.dataset.file_name
    assert len(name) == 200
    assert name.endswith(".csv")


def test_a_file_that_breaks_its_reader_breaks_nothing_else(draft: Challenge) -> None:
    sha256 = draft.dataset.sha256
    with pytest.raises(TableError, match=r"too much memory|broke down"):
        child.call(
            "read_sample",
            memory_mb=64,
            source=draft.dataset.source.path,
            suffix=".csv",
            schema=draft.dataset.schema_json,
            table=draft.dataset.table.path,
            folder=str(draft.dataset.table_path.parent),
        )
    with pytest.raises(TableError, match="too long"):
        child.call("read_table", seconds=0)
    with pytest.raises(TableError, match="broke down"):
        child.call("read_table", nonsense=1)
    assert Dataset.objects.get().sha256 == sha256


def test_the_reader_knows_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMED_SECRET_KEY", "canary")
    monkeypatch.setenv("DATABASE_URL", "canary")
    assert "canary" not in str(child._environment())


def test_an_upload_larger_than_the_cap_is_refused_while_it_is_read(monkeypatch: pytest.MonkeyPatch, olga: User) -> None:
    small = mock.Mock(size=1000)
    monkeypatch.setattr(uploads, "ORGANISER_CAPS", small)
    with pytest.raises(TableError, match="larger than"):
        give_data(new_challenge(olga), clinic_csv(), target="diabetes")


# Check, publish, close ------------------------------------------------------------------------------------------------


def test_the_check_runs_in_the_background(draft: Challenge, olga: User) -> None:
    report = actions.start_check(challenge=draft, by=olga)
    assert report.is_running
    assert OrmQ.objects.count() == 1
    with pytest.raises(Refused, match="running"):
        actions.start_check(challenge=draft, by=olga)
    tasks.check(report.pk)
    report.refresh_from_db()
    assert report.state == CheckReport.State.PASSED
    tasks.check(report.pk)  # a message that comes twice
    tasks.check(987654)  # or too late
    assert CheckReport.objects.count() == 1


def test_a_check_whose_worker_died_can_be_run_again(draft: Challenge, olga: User) -> None:
    report = actions.start_check(challenge=draft, by=olga)
    CheckReport.objects.update(created_at=timezone.now() - PATIENCE - timedelta(seconds=1))
    assert actions.start_check(challenge=draft, by=olga).pk != report.pk


def test_a_fault_of_ours_ends_the_check(draft: Challenge, olga: User) -> None:
    report = actions.start_check(challenge=draft, by=olga)
    draft.dataset.table_path.write_bytes(b"rotten")
    tasks.check(report.pk)
    report.refresh_from_db()
    assert report.state == CheckReport.State.FAILED
    assert [finding.code for finding in report.findings] == ["fault"]


def test_a_change_while_the_check_runs_voids_it(draft: Challenge, olga: User) -> None:
    report = actions.start_check(challenge=draft, by=olga)
    draft.revealed = 0.3
    actions.save_challenge(challenge=draft, by=olga)
    tasks.check(report.pk)
    report.refresh_from_db()
    assert report.state == CheckReport.State.FAILED
    assert report.findings[-1].code == "changed"
    draft.refresh_from_db()
    assert draft.reference_utility is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("revealed", 0.3),
        ("metric", "log_loss"),
        ("candidate_size", 200),
        ("memory_mb", 999),
        ("slug", "other"),
        ("ranking", "gate"),
    ],
)
def test_a_change_after_the_check_asks_for_another(name: str, value: Any, draft: Challenge, olga: User) -> None:
    checked(draft)
    assert actions.publish_obstacle(draft) == ""
    setattr(draft, name, value)
    actions.save_challenge(challenge=draft, by=olga)
    with pytest.raises(Refused, match="changed after the check"):
        actions.publish(challenge=draft, by=olga)


def test_texts_may_change_after_the_check(draft: Challenge, olga: User) -> None:
    checked(draft)
    draft.overview = "# Other words"
    actions.save_challenge(challenge=draft, by=olga)
    assert actions.publish_obstacle(draft) == ""


def test_publishing_opens_the_phases_and_is_on_record(draft: Challenge, olga: User) -> None:
    assert actions.publish_obstacle(draft) == "Run the check first."
    checked(draft)
    version = draft.version
    actions.publish(challenge=draft, by=olga)
    assert draft.status == Challenge.Status.PUBLISHED
    assert draft.current_phase is not None
    assert draft.version > version
    newest = draft.history.first()
    assert (newest.history_user, newest.history_change_reason) == (olga, "published")
    assert draft in Challenge.objects.visible()
    assert draft in Challenge.objects.open()
    with pytest.raises(Refused, match="published already"):
        actions.publish(challenge=draft, by=olga)
    with pytest.raises(Refused, match="published already"):
        actions.start_check(challenge=draft, by=olga)


def test_a_phase_that_is_over_by_now_keeps_a_checked_draft_back(draft: Challenge, olga: User) -> None:
    checked(draft)
    draft.phases.update(closes_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(Refused, match="would be over already"):
        actions.publish(challenge=draft, by=olga)


def test_a_final_opens_when_development_is_over_not_when_it_is_published(draft: Challenge, olga: User) -> None:
    actions.save_phase(phase=Phase(challenge=draft, kind="final", seeds=3), by=olga)
    checked(draft)
    published = actions.publish(challenge=draft, by=olga)
    development, final = published.phases.all()
    assert (development.is_open, final.is_open, final.opens_at) == (True, False, None)
    assert published.current_phase == development


def test_a_failed_check_keeps_a_draft_back(olga: User) -> None:
    challenge = new_challenge(olga)
    assert actions.check_now(challenge=challenge).state == CheckReport.State.FAILED
    with pytest.raises(Refused, match="has not passed"):
        actions.publish(challenge=challenge, by=olga)


def test_closing_ends_it(published: Challenge, olga: User) -> None:
    actions.close(challenge=published, by=olga)
    assert (published.status, published.current_phase) == (Challenge.Status.CLOSED, None)
    assert published in Challenge.objects.visible()
    assert published not in Challenge.objects.open()
    with pytest.raises(Refused, match="Only a published challenge"):
        actions.close(challenge=published, by=olga)


# Locks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", locks.LOCKED)
def test_what_scores_depend_on_is_locked(name: str, published: Challenge, olga: User) -> None:
    value = getattr(published, name)
    others = {
        bool: lambda: not value,
        str: lambda: f"{value}-other",
        dict: lambda: {**value, "other": 1},
        type(None): lambda: 7,
    }
    setattr(published, name, others.get(type(value), lambda: value + 1)())
    with pytest.raises(Refused, match="cannot be changed any more"):
        actions.save_challenge(challenge=published, by=olga)


def test_data_and_phases_are_locked(published: Challenge, olga: User) -> None:
    with pytest.raises(Refused, match="its data cannot be changed"):
        give_data(published, clinic_csv(), target="diabetes")
    with pytest.raises(Refused, match="neither added nor removed"):
        actions.save_phase(phase=Phase(challenge=published, kind="final"), by=olga)
    phase = published.phases.get()
    with pytest.raises(Refused, match="neither added nor removed"):
        actions.delete_phase(phase=phase)
    phase.folds = 5
    with pytest.raises(Refused, match="only the dates"):
        actions.save_phase(phase=phase, by=olga)
    with pytest.raises(Refused, match="Close it first"):
        actions.delete_challenge(challenge=published)


def test_only_dates_that_lie_ahead_can_be_moved(published: Challenge, olga: User) -> None:
    now, day = timezone.now(), timedelta(days=1)
    phase = published.phases.get()
    phase.closes_at = now + day
    actions.save_phase(phase=phase, by=olga)
    phase.closes_at = now - day
    with pytest.raises(Refused, match="in the future for the end"):
        actions.save_phase(phase=phase, by=olga)
    phase.refresh_from_db()
    phase.opens_at = now + day / 2
    with pytest.raises(Refused, match="its beginning cannot be changed"):
        actions.save_phase(phase=phase, by=olga)
    Phase.objects.update(closes_at=now - timedelta(seconds=1))
    phase.refresh_from_db()
    phase.closes_at = now + day
    with pytest.raises(Refused, match="its end cannot be changed"):
        actions.save_phase(phase=phase, by=olga)


def test_a_moved_date_must_not_break_the_calendar(published: Challenge, olga: User) -> None:
    now, day = timezone.now(), timedelta(days=1)
    published.phases.update(closes_at=now + day)
    Phase.objects.create(challenge=published, kind="final", opens_at=now + 2 * day)
    phase = published.phases.get(kind="development")
    for end in (None, now + 3 * day):
        phase.closes_at = end
        with pytest.raises(Refused, match="begins before the development phase is over"):
            actions.save_phase(phase=phase, by=olga)
    phase.closes_at = now + day / 2
    actions.save_phase(phase=phase, by=olga)


def test_an_edit_does_not_undo_what_happened_meanwhile(draft: Challenge, olga: User) -> None:
    """Somebody has the form open while somebody else publishes."""
    opened = Challenge.objects.get(pk=draft.pk)
    checked(draft)
    actions.publish(challenge=draft, by=olga)
    opened.trivial_utility, opened.reference_utility = draft.trivial_utility, draft.reference_utility
    opened.title = "New title"
    actions.save_challenge(challenge=opened, by=olga)
    draft.refresh_from_db()
    assert (draft.title, draft.status) == ("New title", Challenge.Status.PUBLISHED)
    assert draft.published_at is not None


# People ------------------------------------------------------------------------------------------------------


def test_who_may_what(draft: Challenge, olga: User, carl: User) -> None:
    root = User.objects.create_superuser("root@site.test")
    for verb in ("look", "view", "change", "delete", "publish", "close"):
        permission = f"challenges.{verb}_challenge"
        assert olga.has_perm(permission, draft), verb
        assert root.has_perm(permission, draft), verb
        assert not carl.has_perm(permission, draft), verb
        assert not AnonymousUser().has_perm(permission, draft), verb
    Challenge.objects.update(status=Challenge.Status.PUBLISHED)
    draft.refresh_from_db()
    assert carl.has_perm("challenges.look_challenge", draft)
    assert AnonymousUser().has_perm("challenges.look_challenge", draft)
    assert not olga.has_perm("challenges.delete_challenge", draft)


def test_there_is_always_an_organiser(draft: Challenge, carl: User) -> None:
    with pytest.raises(Refused, match="at least one organiser"):
        actions.set_organisers(challenge=draft, organisers=[])
    actions.set_organisers(challenge=draft, organisers=[carl])
    assert list(draft.organisers.all()) == [carl]


def test_the_organisers_group_is_there() -> None:
    held = set(Group.objects.get(name=ORGANISERS).permissions.values_list("codename", flat=True))
    assert {"add_challenge", "change_challenge", "view_challenge", "change_phase"} <= held
    assert "change_dataset" not in held


# The final -------------------------------------------------------------------------------------------------


def test_freezing_ends_development_begins_the_final_and_is_on_record(on_the_way: Challenge, olga: User) -> None:
    before = on_the_way.version
    frozen = actions.freeze(challenge=on_the_way, by=olga)
    development, final = frozen.phases.all()
    assert development.closes_at == final.frozen_at == final.opens_at
    assert frozen.current_phase == final  # late entries may come
    assert frozen.version > before
    line = final.history.first()
    assert (line.history_user, line.history_change_reason) == (olga, "picks frozen")
    with pytest.raises(Refused, match="frozen already"):
        actions.freeze(challenge=on_the_way, by=olga)


def test_a_final_with_a_date_waits_for_it(on_the_way: Challenge, olga: User) -> None:
    later = timezone.now() + timedelta(days=3)
    on_the_way.phases.filter(kind="final").update(opens_at=later)
    frozen = actions.freeze(challenge=on_the_way, by=olga)
    assert frozen.final is not None
    assert frozen.final.opens_at == later
    assert frozen.current_phase is None
    with pytest.raises(Refused, match="has not begun"):
        actions.reveal(challenge=frozen, by=olga)


def test_what_is_frozen_stays_frozen(on_the_way: Challenge, olga: User) -> None:
    frozen = actions.freeze(challenge=on_the_way, by=olga)
    development = frozen.development
    assert development is not None
    development.closes_at = timezone.now() + timedelta(days=1)
    with pytest.raises(Refused, match="its end cannot be changed any more"):
        actions.save_phase(phase=development, by=olga)


def test_without_a_final_or_out_of_order_there_is_nothing_to_freeze_or_reveal(published: Challenge, olga: User) -> None:
    for verb in (actions.freeze, actions.reveal):
        with pytest.raises(Refused, match="has no final phase"):
            verb(challenge=published, by=olga)
    with pytest.raises(Refused, match="no final under way"):
        actions.repeat_faults(challenge=published, by=olga)
    Phase.objects.create(challenge=published, kind="final", seeds=3)
    with pytest.raises(Refused, match="Freeze the picks first"):
        actions.reveal(challenge=published, by=olga)
    actions.close(challenge=published, by=olga)
    with pytest.raises(Refused, match="Only a published challenge"):
        actions.freeze(challenge=published, by=olga)


def test_a_final_that_nobody_is_in_can_be_revealed_once(on_the_way: Challenge, olga: User) -> None:
    frozen = actions.freeze(challenge=on_the_way, by=olga)
    revealed = actions.reveal(challenge=frozen, by=olga)
    assert revealed.shown_phase == revealed.final
    assert revealed.sealed_final is None
    with pytest.raises(Refused, match="revealed already"):
        actions.reveal(challenge=frozen, by=olga)
