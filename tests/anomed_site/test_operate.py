"""The operators' page: who may see it, what it says, and what it must not say."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule

from anomed_site.models import User
from sandbox import alarms
from sandbox.models import Alarm, Copy, Gpu, Host, Image, Run, Slot
from submissions.models import Submission, Team

pytestmark = pytest.mark.django_db

URL = "/admin/sandbox/operate/"


@pytest.fixture(autouse=True)
def background_work_is_up(db: None) -> None:
    Schedule.objects.update(next_run=timezone.now())


def make_run(image: Image, minutes: float = 0, **facts: Any) -> Run:
    at = timezone.now() - timedelta(minutes=minutes)
    fields = {"purpose": "submission-step", "step": "fit", "owner": "team-1", "queued_at": at, "due_at": at}
    return Run.objects.create(image=image, **{**fields, **facts})


class TestWhoMaySeeIt:
    def test_operators(self, admin_client: Client) -> None:
        assert admin_client.get(URL).status_code == 200
        assert admin_client.get("/admin/").content.decode().count(URL) == 1

    def test_staff_who_may_look_at_hosts(self, olga: User) -> None:
        client = Client()
        client.force_login(olga)
        assert client.get(URL).status_code == 403
        assert URL not in client.get("/admin/").content.decode()
        olga.user_permissions.add(Permission.objects.get(codename="view_host"))
        assert client.get(URL).status_code == 200
        assert URL in client.get("/admin/").content.decode()

    def test_nobody_else(self, client: Client, ada: User) -> None:
        assert client.get(URL).status_code == 302
        client.force_login(ada)
        assert client.get(URL).status_code == 302


class TestWhatItSays:
    def text(self, client: Client, query: str = "") -> str:
        return client.get(URL + query).content.decode()

    def test_of_an_empty_arena(self, admin_client: Client) -> None:
        text = self.text(admin_client)
        for sentence in ("No alarm is open", "host_add", "Nothing waits", "No run is under way", "No run failed"):
            assert sentence in text

    def test_it_refreshes_itself_until_it_is_held(self, admin_client: Client) -> None:
        assert 'http-equiv="refresh" content="10"' in self.text(admin_client)
        assert 'http-equiv="refresh"' not in self.text(admin_client, "?still")

    def test_background_work_that_stands_still(self, admin_client: Client) -> None:
        assert "stands still" not in self.text(admin_client)
        Schedule.objects.update(next_run=timezone.now() - timedelta(minutes=20))
        assert "overdue by 20" in self.text(admin_client)

    def test_of_a_busy_arena(self, admin_client: Client, image: Image) -> None:
        now = timezone.now()
        host = Host.objects.create(
            name="one", url="unix:///one", heartbeat=now - timedelta(hours=2), walls=["standard"]
        )
        silent = Host.objects.create(name="two", url="unix:///two", complaint="The engine 19.3 is too old.")
        under_way = make_run(
            image, state="running", started_at=now - timedelta(hours=3), limits={"seconds": 600}, host=host
        )
        Slot.objects.create(host=host, number=1, run=under_way)
        Slot.objects.create(host=silent, number=1)
        Gpu.objects.create(host=host, uuid="GPU-a", memory_mb=1, lost_at=now)
        Copy.objects.create(host=host, image=image)
        make_run(image, minutes=130, priority=30, walls=["gvisor"])
        make_run(image, state="failed", reason="timeout", finished_at=now - timedelta(hours=1), lost_leases=17)
        make_run(image, state="failed", reason="crashed", finished_at=now - timedelta(days=3))
        make_run(image, state="failed", reason="out_of_memory", finished_at=now - timedelta(days=30))
        Alarm.objects.create(kind="disk_low", sentence="Only a little is free.")
        Alarm.objects.create(kind="disk_full", sentence="Nothing was free.", cleared_at=now)
        text = " ".join(self.text(admin_client).split())
        for sentence in (
            "2 hours ago", "never", "1 lost", "takes no run",
            "The engine 19.3 is too old.",
            "1 run, the oldest waits for 2 hours", "No host offers all walls that it demands: gvisor",
            "3 hours of 10 minutes", "Time limit reached", "Crashed",
            "1 in all, at most 1 in an hour", "<dd> 17 </dd>", "Only a little is free.", "Nothing was free.",
        ):  # fmt: skip
            assert sentence in text, sentence
        assert "Out of memory" not in text

    def test_nothing_of_a_team_but_its_number(
        self, admin_client: Client, ready: Callable[..., Submission], teams: dict[str, Team]
    ) -> None:
        ready("ada", "defense", name="Mallory's secret")
        text = self.text(admin_client)
        assert f"team-{teams['ada'].pk}" in text
        assert "Team Ada" not in text
        assert "secret" not in text

    def test_what_containers_say_is_not_there(self, admin_client: Client, image: Image) -> None:
        make_run(image, state="failed", reason="crashed", finished_at=timezone.now(), detail="<b>canary</b>")
        assert "canary" not in self.text(admin_client)

    def test_numbers_keep_their_points_in_german(self, admin_client: Client, image: Image) -> None:
        """Bars are drawn from numbers: a comma would break them."""
        for number in range(3):
            make_run(image, state="succeeded" if number else "failed", reason="" if number else "crashed",
                     finished_at=timezone.now())  # fmt: skip
        text = admin_client.get(URL, headers={"Accept-Language": "de"}).content.decode()
        assert 'lang="de"' in text
        assert 'height="66.6' in text
        assert 'height="66,6' not in text

    def test_the_number_of_questions_does_not_grow(
        self, admin_client: Client, image: Image, django_assert_max_num_queries: Any
    ) -> None:
        for number in range(30):
            host = Host.objects.create(name=f"host {number}", url="unix:///none", walls=["standard"])
            Slot.objects.create(host=host, number=1)
            make_run(image, minutes=number)
            make_run(image, state="running", started_at=timezone.now(), host=host)
        with django_assert_max_num_queries(22):
            admin_client.get(URL)


def test_mails_lead_to_it(settings: Any, mailoutbox: list[Any]) -> None:
    settings.OPERATORS = ["op@hospital.test"]
    alarms._raise(alarms.Condition("disk_low", "", "Low."))
    assert settings.SITE_URL + URL in mailoutbox[0].body
