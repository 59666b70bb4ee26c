"""Entries whose images are web servers: how they say so, where they are refused, what people see of their exchanges."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from knox.models import AuthToken

from anomed_site.models import User
from anomed_site.pages import DOCS
from challenges.models import Challenge
from sandbox.models import Image, Run
from sandbox.reasons import Reason, Rejected
from submissions import actions, exchanges, flow, purpose, scoring, steps
from submissions.models import Duel, Step, Submission, Team
from tests import played

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]
LABEL = {"org.anomed.contract": "web/1"}
REHEARSED = {
    "calls": ["GET /", "POST /fit", "POST /evaluate?data_split=validation"],
    "routes": {
        "GET /": 200,
        "POST /fit": 500,
        "GET /data/deanonymizer/members": 200,
        "GET /data/anonymizer/training": 404,
    },
    "unasked": ["POST /utility/deanonymizer"],
    "queries": 12,
    "live": 3,
}


@pytest.fixture
def server_image(db: None) -> Image:
    return Image.objects.create(image_id="sha256:" + "1" * 64, layers=[], size=1, config={"labels": LABEL})


@pytest.fixture
def api() -> Callable[[User], Client]:
    def sign_in(user: User) -> Client:
        _row, token = AuthToken.objects.create(user)
        return Client(headers={"Authorization": f"Token {token}"})

    return sign_in


@pytest.fixture
def page() -> Callable[..., str]:
    """What somebody reads on an entry's page, as text."""

    def read(who: User, entry: Submission, **headers: str) -> str:
        browser = Client(headers=headers)
        browser.force_login(who)
        return html.unescape(browser.get(entry.get_absolute_url()).content.decode())

    return read


@pytest.fixture
def asking(ready: Ready) -> Submission:
    """Ben's attack, a web server, which has met Ada's defense and asked about 30,001 rows, one of them invented."""
    defense = ready("ada", "defense", name="linear")
    attack = ready("ben", "attack", name="curious")
    Submission.objects.filter(pk=attack.pk).update(contract="web/1")
    played.release(defense)
    duel = Duel.objects.get()
    played.duel(duel)
    duel.step.exchange = {"routes": {"POST /predict": 201}, "queries": 30_001, "live": 1}
    duel.step.save()
    return Submission.objects.with_context().get(pk=attack.pk)


def enter(challenge: Challenge, by: User, contract: str = "", **fields: Any) -> Submission:
    more = {"kind": "attack", "file_name": "a.tar", "size": 10, "contract": contract, **fields}
    return actions.enter(challenge=challenge, by=by, **more)


def checked(entry: Submission, image: Image) -> Submission:
    flow.uploaded(entry)
    flow.image_accepted(entry, image)
    return entry


class TestChoosing:
    def test_an_entry_says_that_it_is_a_server(
        self, clinic: Challenge, teams: dict[str, Team], ada: User, image: Image
    ) -> None:
        entry = checked(enter(clinic, ada, "web/1"), image)
        run = Run.objects.get()
        assert (entry.contract, run.contract) == ("web/1", "web/1")
        assert run.collect["files"] == ["exchange.json"]

    def test_a_label_says_so_if_nobody_chose(
        self, clinic: Challenge, teams: dict[str, Team], ada: User, server_image: Image
    ) -> None:
        assert checked(enter(clinic, ada), server_image).contract == "web/1"
        assert Run.objects.get().contract == "web/1"

    def test_what_was_chosen_outdoes_the_label(
        self, clinic: Challenge, teams: dict[str, Team], ada: User, server_image: Image
    ) -> None:
        assert checked(enter(clinic, ada, "anomed/1"), server_image).contract == "anomed/1"
        assert Run.objects.get().contract == "anomed/1"

    @pytest.mark.parametrize("labels", [{}, {"org.anomed.contract": ""}])
    def test_else_it_reads_and_writes_files(
        self, clinic: Challenge, teams: dict[str, Team], ada: User, image: Image, labels: dict[str, str]
    ) -> None:
        image.config = {"labels": labels}
        assert checked(enter(clinic, ada), image).contract == "anomed/1"

    def test_a_label_that_means_nothing(
        self, clinic: Challenge, teams: dict[str, Team], ada: User, image: Image
    ) -> None:
        image.config = {"labels": {"org.anomed.contract": "web/99 and a long story"}}
        entry = checked(enter(clinic, ada), image)
        assert (entry.state, entry.failure_reason, entry.contract) == ("failed", "image_invalid", "")
        assert "Choose one of: anomed/1, web/1" in entry.failure_detail
        assert not Run.objects.exists()

    def test_the_organisers_anchors_too(
        self, clinic: Challenge, teams: dict[str, Team], olga: User, image: Image
    ) -> None:
        entry = enter(clinic, olga, "web/1", kind="defense", role="leaky")
        assert checked(entry, image).contract == "web/1"


class TestRefusing:
    def test_a_game_that_servers_cannot_play(
        self, clinic: Challenge, teams: dict[str, Team], ada: User, server_image: Image
    ) -> None:
        Challenge.objects.update(scenario="synthetic-membership")
        with pytest.raises(actions.Refused, match="cannot play this kind of challenge"):
            enter(clinic, ada, "web/1")
        entry = enter(clinic, ada)
        flow.uploaded(entry)
        entry = Submission.objects.get(pk=entry.pk)
        flow.image_accepted(entry, server_image)
        assert (entry.state, entry.failure_reason) == ("failed", "image_invalid")
        assert "cannot play this kind of challenge" in entry.failure_detail

    def test_a_challenge_behind_gvisor(self, clinic: Challenge, teams: dict[str, Team], ada: User) -> None:
        Challenge.objects.update(walls=["gvisor"])
        with pytest.raises(actions.Refused, match="gVisor"):
            enter(clinic, ada, "web/1")
        assert enter(clinic, ada).contract == ""

    def test_a_site_behind_gvisor(self, clinic: Challenge, teams: dict[str, Team], ada: User, settings: Any) -> None:
        settings.SANDBOX = {**settings.SANDBOX, "walls": ("gvisor",)}
        with pytest.raises(actions.Refused, match="gVisor"):
            enter(clinic, ada, "web/1")


class TestForm:
    @pytest.fixture
    def browser(self, teams: dict[str, Team], ada: User) -> Client:
        browser = Client()
        browser.force_login(ada)
        return browser

    def send(self, browser: Client, **fields: Any) -> Any:
        archive = SimpleUploadedFile("mine.tar", b"an archive" * 100)
        return browser.post(reverse("submit", args=["clinic"]), {"kind": "attack", "file": archive, **fields})

    def test_asks_how_the_image_talks(self, clinic: Challenge, browser: Client) -> None:
        asked = browser.get(reverse("submit", args=["clinic"])).content.decode()
        assert re.search(r'<label[^>]*for="id_contract"', asked)
        assert reverse("docs_page", args=["web-images"]) in asked
        assert self.send(browser, contract="web/1").status_code == 302
        assert Submission.objects.get().contract == "web/1"

    def test_nothing_need_be_chosen(self, clinic: Challenge, browser: Client) -> None:
        assert self.send(browser).status_code == 302
        assert Submission.objects.get().contract == ""

    def test_refuses_what_is_no_contract(self, clinic: Challenge, browser: Client) -> None:
        answer = self.send(browser, contract="web/2")
        assert answer.status_code == 422
        assert 'id="error_1_id_contract"' in answer.content.decode()

    @pytest.mark.parametrize("change", [{"scenario": "synthetic-membership"}, {"walls": ["gvisor"]}])
    def test_asks_nothing_where_servers_cannot_play(
        self, clinic: Challenge, browser: Client, change: dict[str, Any]
    ) -> None:
        Challenge.objects.update(**change)
        asked = browser.get(reverse("submit", args=["clinic"])).content.decode()
        assert "id_contract" not in asked
        assert "web-images" not in asked
        assert self.send(browser).status_code == 302


class TestApi:
    def announce(self, client: Client, **fields: Any) -> Any:
        data = {"kind": "attack", "file_name": "a.tar", "size": 10, **fields}
        return client.post("/api/v1/challenges/clinic/submissions", data, content_type="application/json")

    def test_takes_a_contract_and_tells_it(self, teams: dict[str, Team], ada: User, api: Any) -> None:
        answer = self.announce(api(ada), contract="web/1")
        assert (answer.status_code, answer.json()["contract"]) == (201, "web/1")
        assert self.announce(api(ada)).json()["contract"] == ""

    def test_refuses_with_a_sentence(self, teams: dict[str, Team], ada: User, api: Any) -> None:
        Challenge.objects.update(scenario="synthetic-membership")
        answer = self.announce(api(ada), contract="web/1")
        assert answer.status_code == 409
        assert "cannot play this kind of challenge" in answer.json()["errors"][0]["detail"]
        assert self.announce(api(ada), contract="web/2").status_code == 400

    def test_tells_the_routes_of_a_rehearsal(
        self, clinic: Challenge, teams: dict[str, Team], ada: User, api: Any, image: Image
    ) -> None:
        entry = checked(enter(clinic, ada, "web/1"), image)
        entry.steps.update(exchange=REHEARSED)
        (step,) = api(ada).get(f"/api/v1/submissions/{entry.pk}").json()["steps"]
        assert step["routes"][1] == {"request": "POST /fit", "by": "platform", "status": 500, "outcome": "failed"}
        assert [(route["request"], route["outcome"]) for route in step["routes"] if route["by"] == "server"] == [
            ("GET /data/deanonymizer/members", "answered"),
            ("GET /data/anonymizer/training", "refused"),
            ("POST /utility/deanonymizer", "unasked"),
        ]

    def test_tells_a_team_coarsely_what_was_asked(self, asking: Submission, ben: User, olga: User, api: Any) -> None:
        told = api(ben).get(f"/api/v1/submissions/{asking.pk}").json()["questions"]
        assert (told["budget"], told["exact"]) == (100_000, False)
        assert [(one["name"], one["rows"]) for one in told["defenses"]] == [("linear", 50_000)]
        told = api(olga).get(f"/api/v1/submissions/{asking.pk}").json()["questions"]
        assert (told["exact"], told["defenses"][0]["rows"]) == (True, 30_001)

    def test_says_nothing_of_entries_that_ask_nothing(self, ready: Ready, ada: User, api: Any) -> None:
        for kind in ("attack", "defense"):
            told = api(ada).get(f"/api/v1/submissions/{ready('ada', kind).pk}").json()
            assert (told["questions"], {len(step["routes"]) for step in told["steps"]} - {0}) == (None, set())


class TestPage:
    def test_shows_the_routes_of_a_rehearsal(
        self, clinic: Challenge, teams: dict[str, Team], ada: User, olga: User, image: Image, page: Any
    ) -> None:
        entry = checked(enter(clinic, ada, "web/1"), image)
        assert "Routes of the rehearsal" not in page(ada, entry)
        entry.steps.update(exchange=REHEARSED)
        for reader in (ada, olga):
            shown = re.sub(r"<[^>]+>|\s+", " ", page(reader, entry))
            assert re.search(r"attack +POST /fit +the platform +500 +failed", shown)
            assert re.search(r"POST /evaluate\?data_split=validation +the platform +– +not called", shown)
            assert re.search(r"GET /data/anonymizer/training +your server +404 +refused", shown)
            assert re.search(r"POST /utility/deanonymizer +your server +– +not asked for", shown)
            assert "asked the defense about 12 rows" in shown

    def test_speaks_german(self, asking: Submission, ben: User, page: Any) -> None:
        assert "100.000" in page(ben, asking, **{"Accept-Language": "de"})

    def test_shows_a_team_quarters_and_organisers_the_number(
        self, asking: Submission, ben: User, olga: User, page: Any
    ) -> None:
        shown = page(ben, asking)
        assert "up to 50,000 of 100,000" in shown
        assert "30,001" not in shown.replace("30001", "30,001")
        assert "30,001 of 100,000, 1 of them live" in page(olga, asking)

    def test_never_shows_routes_of_a_private_run(self, asking: Submission, ben: User, page: Any) -> None:
        Step.objects.filter(duel__isnull=False).update(
            exchange={"calls": [], "routes": {"GET /canary-57": 404}, "queries": 1}
        )
        assert "canary" not in page(ben, asking)

    def test_of_an_attack_that_has_met_nobody(self, ready: Ready, ben: User, page: Any) -> None:
        attack = ready("ben", "attack")
        Submission.objects.update(contract="web/1")
        assert "It has met nobody yet." in page(ben, attack)


class TestQuestions:
    @pytest.mark.parametrize(
        ("rows", "budget", "told"),
        [(0, 100, 0), (1, 100, 25), (25, 100, 25), (26, 100, 50), (100, 100, 100), (3, 10, 5), (5, 0, 0), (9, 3, 3)],
    )
    def test_are_told_in_quarters(self, rows: int, budget: int, told: int) -> None:
        assert exchanges.rounded(rows, budget) == told

    def test_take_few_values_whatever_is_asked(self) -> None:
        assert len({exchanges.rounded(rows, 100_000) for rows in range(100_001)}) == exchanges.STEPS + 1

    def test_nothing_is_told_before_a_duel_is_over_or_revealed(self, asking: Submission) -> None:
        assert exchanges.questions(asking, exact=False) is not None
        Duel.objects.update(state="pending")
        told = exchanges.questions(asking, exact=True)
        assert told is not None
        assert told.defenses == []
        Duel.objects.update(state="done")
        asking.challenge.phases.update(kind="final")
        sealed = exchanges.questions(asking, exact=True)
        assert sealed is not None
        assert sealed.defenses == []

    def test_the_settings_of_a_challenge_name_the_budget(self, asking: Submission) -> None:
        asking.challenge.options = {"query_budget": 400}
        told = exchanges.questions(asking, exact=False)
        assert told is not None
        assert (told.budget, told.defenses[0].rows) == (400, 400)


@pytest.mark.parametrize("kind", ["defense", "attack"])
def test_the_guide_names_every_route(
    clinic: Challenge, teams: dict[str, Team], ada: User, image: Image, tmp_path: Path, kind: str
) -> None:
    entry = checked(enter(clinic, ada, "web/1", kind=kind), image)
    (step,) = entry.steps.select_related("submission__challenge__dataset")
    steps.images_of(entry).write_inputs(step.name, scoring.board_of(step), tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    routes = [*plan["serve"], *plan["record"], *plan.get("target", ()), *(call["post"] for call in plan["calls"])]
    guide = (DOCS / "web-images.md").read_text()
    assert [route for route in routes if f"{route}`" not in guide and f"{route}?" not in guide] == []


def test_what_an_exchange_came_to_is_kept_with_its_step(
    clinic: Challenge, teams: dict[str, Team], ada: User, image: Image
) -> None:
    entry = checked(enter(clinic, ada, "web/1"), image)
    (step,) = entry.steps.all()
    verdict = {"exchange": {"routes": {"GET /": 200}, "queries": 0, "live": 0}, "columns": {}}
    purpose.SubmissionStep().settle(step.run, verdict)
    step.refresh_from_db()
    assert step.exchange["routes"] == {"GET /": 200}
    assert steps.images_of(entry) is not steps.scenario_of(entry)


def test_what_a_failed_exchange_came_to_is_read_as_hostile(
    clinic: Challenge, teams: dict[str, Team], ada: User, image: Image, tmp_path: Path
) -> None:
    entry = checked(enter(clinic, ada, "web/1"), image)
    (step,) = entry.steps.all()
    told = tmp_path / "exchange.json"
    told.write_text(json.dumps({"routes": {"GET /\x1b[31m": 404}, "calls": ["GET /"], "queries": 3}))
    reader = purpose.SubmissionStep().account(step.run, told)
    assert reader is not None
    verdict = reader[0](*reader[1])
    step.run.state, step.run.reason = Run.State.FAILED, Reason.CRASHED
    purpose.SubmissionStep().settle(step.run, verdict)
    step.refresh_from_db()
    entry.refresh_from_db()
    assert (entry.state, entry.failure_cause) == ("failed", "crashed")
    assert [(route.request, route.outcome) for route in exchanges.of_rehearsal([step])[0].all] == [
        ("GET /", "unasked"),
        ("GET /[31m", "refused"),
    ]
    told.write_text("[" * 100_000)
    with pytest.raises(Rejected):
        reader[0](*reader[1])
