"""The organisers' pages, walked by HTTP: what an organiser who knows only the admin does, and who may not."""

import html
import re
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from django.contrib.auth.models import Group
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ

from anomed_site.models import User
from challenges import actions, tasks
from challenges.models import Challenge, CheckReport, Phase
from challenges.permissions import ORGANISERS
from tests.challenges.conftest import clinic
from tests.challenges.organisers import breast_cancer_csv, checked, csv_of, give_data, new_challenge, small_draft
from tests.conftest import person

pytestmark = pytest.mark.django_db


@pytest.fixture
def organiser(olga: User) -> User:
    """Staff and in the group, as a superuser ticks it; no superuser herself."""
    olga.groups.add(Group.objects.get(name=ORGANISERS))
    return olga


@pytest.fixture
def site(client: Client, organiser: User) -> Client:
    client.force_login(organiser)
    return client


def page(name: str, challenge: Challenge | None = None) -> str:
    return reverse(f"admin:challenges_challenge_{name}", args=[challenge.pk] if challenge else [])


def text(response: Any) -> str:
    """What a reader sees: the page without its tags."""
    assert response.status_code == 200, response
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def settings_form(**changes: Any) -> dict[str, Any]:
    """What the browser sends for a new challenge, phases included."""
    return {
        "title": "Breast cancer",
        "slug": "breast-cancer",
        "summary": "Who was in the training data of a tumour model?",
        "overview": "# Tumours",
        "rules": "Be fair.",
        "scenario": "model-membership",
        "metric": "auroc",
        "ranking": "harmonic",
        "time_zone": "Europe/Berlin",
        "seconds": 600,
        "memory_mb": 4096,
        "cpus": 1,
        "gpus": 0,
        "gpu_memory_mb": 0,
        "output_mb": 512,
        "pids": 256,
        "daily_quota": 3,
        "total_quota": 40,
        "failure_quota": 20,
        "active_limit": 2,
        "reference_leak": 0.2,
        "utility_threshold": 0.5,
        "revealed": 0.2,
        "phases-TOTAL_FORMS": 0,
        "phases-INITIAL_FORMS": 0,
        **changes,
    }


def phase_form(phase: Any, **changes: Any) -> dict[str, Any]:
    fields = {"id": phase.pk, "challenge": phase.challenge_id, "kind": phase.kind, "seeds": 1, "folds": 2, **changes}
    return {
        "phases-TOTAL_FORMS": 1,
        "phases-INITIAL_FORMS": 1,
        **{f"phases-0-{name}": value for name, value in fields.items()},
    }


def upload(site: Client, challenge: Challenge, content: bytes, name: str = "wdbc.csv", **fields: str) -> Any:
    data = {"do": "upload", "file": SimpleUploadedFile(name, content), **fields}
    return site.post(page("data", challenge), data, follow=True)


def test_an_organiser_who_knows_only_the_admin_publishes_a_challenge(site: Client, organiser: User) -> None:
    assert "Add challenge" in text(site.get(reverse("admin:index")) and site.get(page("changelist")))

    created = site.post(page("add"), settings_form(), follow=True)
    challenge = Challenge.objects.get(slug="breast-cancer")
    assert created.redirect_chain[-1][0] == page("data", challenge)
    assert list(challenge.organisers.all()) == [organiser]
    assert [phase.kind for phase in challenge.phases.all()] == ["development"]

    # The upload, first without saying what the target is
    shown = text(upload(site, challenge, breast_cancer_csv()))
    assert "569 records, 31 columns" in shown
    assert "mean radius" in shown
    assert "A sample is generated as soon as a target is chosen." in shown

    roles = {f"role-{number}": "feature" for number in range(30)} | {"role-30": "target"}
    shown = text(site.post(page("data", challenge), {"do": "columns", **roles}, follow=True))
    assert "0, 1" in shown
    assert "400 records, generated from independent marginals" in shown

    # The check, in the background
    assert "Run the check first." in text(site.get(page("change", challenge)))
    running = site.post(page("check", challenge), follow=True)
    assert "The check is running." in text(running)
    assert '<meta http-equiv="refresh"' in running.content.decode()
    assert OrmQ.objects.count() == 1
    tasks.check(challenge.reports.get().pk)
    report = site.get(page("check", challenge))
    shown = text(report)
    assert "Passed, with 1 warning." in shown
    assert "Too few records for firm conclusions" in shown
    assert "scores attacks on 218 candidates" in shown  # of 272, a fifth is told to every attack
    assert "standard error of about 0.078 (with 6,000 it would be 0.015)" in shown
    assert "refresh" not in report.content.decode()

    # Publishing, after a question
    question = text(site.get(page("publish", challenge)))
    assert "Publish “Breast cancer”?" in question
    assert "Too few records for firm conclusions" in question
    assert "The challenge is published." in text(site.post(page("publish", challenge), follow=True))
    challenge.refresh_from_db()
    assert challenge.status == Challenge.Status.PUBLISHED
    assert challenge.current_phase is not None
    assert challenge.reference_utility is not None
    assert challenge.reference_utility > 0.95

    history = text(site.get(page("history", challenge)))
    assert "published" in history
    assert "olga@hospital.test" in history

    assert "The challenge is closed." in text(site.post(page("close", challenge), follow=True))
    challenge.refresh_from_db()
    assert challenge.status == Challenge.Status.CLOSED


def test_what_scores_depend_on_cannot_be_changed_after_publishing(site: Client, published: Challenge) -> None:
    phase = published.phases.get()
    wanted = settings_form(title="Another title", slug="another", metric="log_loss", seconds=5, daily_quota=9)
    wanted["time_zone"] = "Asia/Tokyo"  # nor are dates read in it
    opened = timezone.localtime(phase.opens_at, ZoneInfo("Europe/Berlin"))  # a form shows no fractions of a second
    dates = {"opens_at_0": f"{opened:%Y-%m-%d}", "opens_at_1": f"{opened:%H:%M:%S}"}
    end = {"closes_at_0": "2040-01-01", "closes_at_1": "12:00"}
    form = {**wanted, **phase_form(phase, seeds=7, **dates, **end), "organiser_emails": "olga@hospital.test"}
    assert site.post(page("change", published), form).status_code == 302
    published.refresh_from_db()
    assert (published.title, published.daily_quota) == ("Another title", 9)
    assert (published.slug, published.metric, published.seconds) == ("small", "auroc", 600)
    assert published.phases.get().seeds == 1
    assert published.time_zone == "Europe/Berlin"
    assert published.phases.get().closes_at == datetime(2040, 1, 1, 11, 0, tzinfo=UTC)

    refused = site.post(page("change", published), {**form, "phases-0-opens_at_0": "2020-01-01"})
    assert "its beginning cannot be changed any more" in text(refused)

    refused = text(upload(site, published, breast_cancer_csv(), target="diagnosis"))
    assert "its data cannot be changed any more" in refused


def test_dates_are_read_and_shown_in_the_challenges_own_time_zone(site: Client, draft: Challenge) -> None:
    phase = draft.phases.get()
    dates = {"opens_at_0": "2030-07-01", "opens_at_1": "09:00", "closes_at_0": "2030-12-01", "closes_at_1": "18:00"}
    form = settings_form(slug="small", time_zone="America/New_York", organiser_emails="olga@hospital.test")
    answer = site.post(page("change", draft), {**form, **phase_form(phase, **dates)})
    assert answer.status_code == 302
    phase.refresh_from_db()
    assert phase.opens_at == datetime(2030, 7, 1, 13, 0, tzinfo=UTC)
    assert phase.closes_at == datetime(2030, 12, 1, 23, 0, tzinfo=UTC)
    shown = site.get(page("change", draft)).content.decode()
    assert 'value="09:00:00"' in shown
    assert 'value="18:00:00"' in shown


def test_settings_of_a_scenario_are_told_and_checked(site: Client, draft: Challenge) -> None:
    assert "“rows”" in text(site.get(page("change", draft)))
    form = {**settings_form(slug="small", organiser_emails="olga@hospital.test"), **phase_form(draft.phases.get())}
    form["scenario"] = "synthetic-membership"
    refused = site.post(page("change", draft), {**form, "options": '{"rows": 5}'})
    assert "“rows” must be at least 100." in text(refused)
    assert site.post(page("change", draft), {**form, "options": '{"rows": 250}'}).status_code == 302
    draft.refresh_from_db()
    assert draft.game.options == {"rows": 250}
    assert site.post(page("change", draft), {**form, "options": ""}).status_code == 302
    draft.refresh_from_db()
    assert draft.options == {}


def test_a_final_that_names_no_seeds_gets_three(site: Client, draft: Challenge) -> None:
    form = settings_form(slug="small", organiser_emails="olga@hospital.test")
    final = {"kind": "final", "seeds": "", "folds": "", "challenge": draft.pk}
    both = {**phase_form(draft.phases.get()), "phases-TOTAL_FORMS": 2}
    both |= {f"phases-1-{name}": value for name, value in final.items()}
    assert site.post(page("change", draft), {**form, **both}).status_code == 302
    assert list(draft.phases.values_list("kind", "seeds", "folds")) == [("development", 1, 2), ("final", 3, 1)]


def test_an_organiser_freezes_and_reveals_after_a_question_each(site: Client, published: Challenge) -> None:
    Phase.objects.create(challenge=published, kind="final", seeds=3, folds=1)
    shown = text(site.get(page("final", published)))
    assert "until you freeze the picks" in shown
    assert "Final picks are open" in shown  # its step, with where it stands
    assert "This cannot be undone" in text(site.get(page("freeze", published)))
    shown = text(site.post(page("freeze", published), follow=True))
    assert "The picks are frozen." in shown
    assert "0 of 0 runs are over." in shown
    assert "Late entries end here." in text(site.get(page("close", published)))
    assert "Everybody sees the final standings" in text(site.get(page("reveal", published)))
    shown = text(site.post(page("reveal", published), follow=True))
    assert "The results are revealed." in shown
    assert "Freeze the picks now" not in shown
    assert "revealed already" in text(site.get(page("reveal", published)))


def test_only_its_organiser_comes_near_a_final(client: Client, published: Challenge, ada: User) -> None:
    Phase.objects.create(challenge=published, kind="final", seeds=3, folds=1)
    ada.is_staff = True
    ada.save()
    ada.groups.add(Group.objects.get(name=ORGANISERS))
    client.force_login(ada)
    for name in ("final", "freeze", "reveal"):
        assert client.get(page(name, published)).status_code in (302, 403, 404)
        assert client.post(page(name, published)).status_code in (302, 403, 404)
    final = published.phases.get(kind="final")
    assert (final.frozen_at, final.revealed_at) == (None, None)


def test_a_table_that_cannot_be_read_is_refused_with_a_sentence(site: Client, draft: Challenge) -> None:
    before = draft.dataset.sha256
    for content, name, sentence in (
        (b"a,b\n", "empty.csv", "The file has no rows."),
        (b"\xff\xfe\x00", "utf16.csv", "coded as UTF-16"),
        (b"age,sick\n" + b"1,yes\n" * 50, "one.csv", "one class only"),
        (b"PK\x03\x04", "table.xlsx", "Only CSV and Parquet files can be read."),
    ):
        assert sentence in text(upload(site, draft, content, name, target="sick" if name == "one.csv" else ""))
    draft.refresh_from_db()
    assert draft.dataset.sha256 == before


def test_a_sample_with_real_patients_is_refused(site: Client, draft: Challenge) -> None:
    real = draft.dataset.source.read()
    answer = site.post(page("data", draft), {"do": "sample", "file": SimpleUploadedFile("sample.csv", real)})
    assert "records of this sample are records of the private table" in text(answer)
    assert draft.dataset.sample_origin == "generated"


def test_another_sample_can_be_generated(site: Client, draft: Challenge) -> None:
    before = draft.dataset.sample.name
    assert "The public sample was replaced." in text(site.post(page("data", draft), {"do": "generate"}, follow=True))
    draft.refresh_from_db()
    assert draft.dataset.sample.name != before


def test_a_numeric_target_stays_classes_when_a_patient_column_is_chosen(site: Client, organiser: User) -> None:
    challenge = new_challenge(organiser)
    frame = clinic(400).drop(columns=["stage", "days", "diabetes"]).dropna(subset="visits")
    frame.insert(0, "patient", range(len(frame)))
    give_data(challenge, csv_of(frame), target="visits", task="multiclass")
    dataset = challenge.dataset
    shown = site.get(page("data", challenge)).content.decode()
    assert '<option value="multiclass" selected>' in shown
    names = [column.name for column in dataset.schema.columns]
    roles = {f"role-{number}": "feature" for number in range(len(names))}
    roles |= {f"role-{names.index('visits')}": "target", f"role-{names.index('patient')}": "patient"}
    answer = site.post(page("data", challenge), {"do": "columns", "task": "multiclass", **roles}, follow=True)
    assert "a new sample was generated" in text(answer)
    again = Challenge.objects.get(pk=challenge.pk).dataset
    assert (again.schema.task, again.schema.patient_id) == ("multiclass", "patient")
    assert again.uploaded_at == dataset.uploaded_at

    roles |= {f"role-{names.index('visits')}": "feature", f"role-{names.index('glucose')}": "target"}
    site.post(page("data", challenge), {"do": "columns", "task": "multiclass", **roles}, follow=True)
    assert Challenge.objects.get(pk=challenge.pk).dataset.schema.task == "regression"


def test_no_sample_is_announced_that_could_not_be_generated(site: Client, organiser: User) -> None:
    challenge = new_challenge(organiser)
    coarse = pd.DataFrame({"sex": ["f", "m"] * 100, "age": [n // 4 for n in range(200)], "sick": ["no", "yes"] * 100})
    give_data(challenge, csv_of(coarse))
    names = [column.name for column in challenge.dataset.schema.columns]
    roles = {f"role-{number}": "target" if name == "sick" else "feature" for number, name in enumerate(names)}
    shown = text(site.post(page("data", challenge), {"do": "columns", **roles}, follow=True))
    assert "no sample could be generated" in shown
    assert "a new sample was generated" not in shown


def test_publishing_is_greyed_with_the_reason(site: Client, draft: Challenge) -> None:
    shown = site.get(page("change", draft)).content.decode()
    assert '<span class="arena-off" aria-disabled="true">Publish</span>' in shown
    assert page("publish", draft) not in shown
    assert "Run the check first." in text(site.post(page("publish", draft), follow=True))
    draft.refresh_from_db()
    assert draft.status == Challenge.Status.DRAFT


@pytest.mark.parametrize("name", ["change", "data", "check", "publish", "close", "history", "delete"])
def test_others_are_kept_out(name: str, client: Client, draft: Challenge, organiser: User, carl: User) -> None:
    other = person("otto@clinic.test", is_staff=True)
    other.groups.add(Group.objects.get(name=ORGANISERS))
    for somebody in (other, carl, None):
        client.logout()
        if somebody is not None:
            client.force_login(somebody)
        for answer in (
            client.get(page(name, draft)),
            client.post(page(name, draft), {"do": "generate", "post": "yes"}),
        ):
            assert answer.status_code in {302, 403, 404}
            assert draft.title not in answer.content.decode()
    client.force_login(other)
    assert draft.title not in text(client.get(page("changelist")))
    draft.refresh_from_db()
    assert draft.status == Challenge.Status.DRAFT
    assert not CheckReport.objects.exists()


def test_pages_have_no_inline_script_or_style(site: Client, draft: Challenge) -> None:
    for name in ("add", "changelist"):
        assert_strict(site.get(page(name)).content.decode())
    for name in ("change", "data", "check", "publish", "close"):
        assert_strict(site.get(page(name, draft)).content.decode())


def assert_strict(source: str) -> None:
    assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")[^>]*>", source)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", source)


def test_organisers_are_named_by_address(site: Client, draft: Challenge, carl: User) -> None:
    form = {**settings_form(slug="small"), **phase_form(draft.phases.get())}
    refused = site.post(page("change", draft), {**form, "organiser_emails": "nobody@web.test"})
    assert "Nobody has signed up with the address nobody@web.test yet." in text(refused)
    site.post(page("change", draft), {**form, "organiser_emails": "olga@hospital.test\ncarl@web.test"})
    assert draft.is_organiser(carl)


def test_pages_speak_german(site: Client, draft: Challenge, settings: Any) -> None:
    german = site.get(page("data", draft), headers={"accept-language": "de"})
    assert german.headers["content-language"] == "de"
    assert german.status_code == 200


@pytest.fixture
def draft(organiser: User) -> Challenge:
    return small_draft(organiser)


@pytest.fixture
def published(draft: Challenge, organiser: User) -> Challenge:
    checked(draft)
    return actions.publish(challenge=draft, by=organiser)
