"""The published interface, spoken over HTTP as the client speaks it."""

import html
from collections.abc import Callable
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from knox.models import AuthToken

from challenges.models import Challenge, Phase
from sandbox.models import Run
from sandbox.reasons import Reason, hint
from submissions import flow
from submissions.models import Standing, Submission
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


@pytest.fixture
def api() -> Callable[..., Client]:
    """A client that brings a person's token, or none."""

    def sign_in(user: Any = None) -> Client:
        if user is None:
            return Client()
        _row, token = AuthToken.objects.create(user)
        return Client(headers={"Authorization": f"Token {token}"})

    return sign_in


def announce(client: Client, slug: str = "clinic", **fields: Any) -> Any:
    data = {"kind": "attack", "file_name": "lira.tar", "size": 10, **fields}
    return client.post(f"/api/v1/challenges/{slug}/submissions", data, content_type="application/json")


def page_of(user: Any, entry: Submission) -> str:
    """The entry's page as this person sees it."""
    browser = Client()
    browser.force_login(user)
    return browser.get(entry.get_absolute_url()).content.decode()


def patch(client: Client, url: str, offset: int, body: bytes, **headers: str) -> Any:
    return client.patch(
        url, body, content_type="application/offset+octet-stream", headers={"Upload-Offset": str(offset), **headers}
    )


def test_signing_in_gives_a_token_that_can_be_given_back(ada: Any) -> None:
    login = {"email": ada.email, "password": PASSWORD}
    token = Client().post("/api/v1/token", login, content_type="application/json").json()["token"]
    client = Client(headers={"Authorization": f"Token {token}"})
    assert client.get("/api/v1/me").json() == {"email": ada.email, "name": "", "teams": []}
    assert client.delete("/api/v1/token").status_code == 204
    assert client.get("/api/v1/me").status_code == 401


def test_a_wrong_password_is_told_in_a_sentence(ada: Any) -> None:
    answer = Client().post("/api/v1/token", {"email": ada.email, "password": "x"}, content_type="application/json")
    assert answer.status_code in (401, 403)
    assert answer.json()["errors"][0]["detail"] == "The email address or the password is wrong."


@pytest.mark.parametrize(
    "address", ["submissions/not-a-uuid", "challenges/clinic/cards/7", "uploads/..", "nowhere", "", "me/", "token/x"]
)
def test_an_unknown_address_is_an_error_like_all_others(db: None, address: str) -> None:
    for method in ("get", "post", "patch", "delete"):
        answer = getattr(Client(), method)(f"/api/v1/{address}")
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json()["type"] == "client_error"
        assert answer.json()["errors"][0] == {"code": "not_found", "detail": "There is no such address.", "attr": None}


def test_a_list_of_entries_builds_each_board_once(ready: Callable[..., Submission], ada: Any, api: Any) -> None:
    client = api(ada)

    def boards_built() -> int:
        with CaptureQueriesContext(connection) as queries:
            entries = client.get("/api/v1/challenges/clinic/submissions").json()["results"]
        assert all(entry["score"] is not None for entry in entries)
        return sum('ORDER BY "submissions_standing"."public_score"' in query["sql"] for query in queries)

    for number in range(2):
        Standing.objects.update_or_create(
            submission=ready("ada", "defense", name=f"d{number}"), phase=Phase.objects.get(), defaults={"utility": 0.5}
        )
    assert boards_built() == 1
    attack = ready("ada", "attack")
    Standing.objects.update_or_create(submission=attack, phase=Phase.objects.get(), defaults={"mean_leak": 0.1})
    assert boards_built() == 2  # one of defenses, one of attacks


def test_guessing_passwords_is_slowed_down(ada: Any) -> None:
    login = {"email": ada.email, "password": "guess"}
    answers = [Client().post("/api/v1/token", login, content_type="application/json") for _ in range(12)]
    assert answers[-1].status_code in (401, 403, 429)
    right = Client().post("/api/v1/token", {"email": ada.email, "password": PASSWORD}, content_type="application/json")
    assert right.status_code != 200


def sign_in(user: Any, password: str = PASSWORD, **more: Any) -> Any:
    return Client().post(
        "/api/v1/token", {"email": user.email, "password": password}, content_type="application/json", **more
    )


def test_guessing_one_password_from_many_addresses_is_slowed_down_too(ada: Any) -> None:
    for number in range(5):
        assert sign_in(ada, "guess", REMOTE_ADDR=f"192.0.2.{number}").status_code == 403
    answer = sign_in(ada, REMOTE_ADDR="192.0.2.99")
    assert answer.status_code == 429
    assert "Too many failed login attempts" in answer.json()["errors"][0]["detail"]


def test_signing_in_rightly_uses_up_no_attempts(ada: Any) -> None:
    assert [sign_in(ada).status_code for _ in range(7)] == [200] * 7


def test_a_password_alone_is_not_enough_where_the_website_asks_for_more(ada: Any) -> None:
    Authenticator.objects.create(user=ada, type=Authenticator.Type.TOTP, data={})
    answer = sign_in(ada)
    assert answer.status_code == 403
    assert "Make a token on your profile page" in answer.json()["errors"][0]["detail"]
    assert not AuthToken.objects.exists()


def test_an_address_is_confirmed_before_it_signs_in(ada: Any, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    answer = sign_in(ada)
    assert answer.status_code == 403
    assert "confirm your email address" in answer.json()["errors"][0]["detail"]
    EmailAddress.objects.update_or_create(user=ada, email=ada.email, defaults={"verified": True})
    assert sign_in(ada).status_code == 200


def test_closed_accounts_get_no_token(ada: Any) -> None:
    ada.is_active = False
    ada.save()
    assert sign_in(ada).json()["errors"][0]["detail"] == "The email address or the password is wrong."


def test_a_giant_of_a_request_is_no_fault_of_the_server(clinic: Challenge, api: Any, carl: Any) -> None:
    giant = {"team": "x" * 2_700_000, "accept_rules": True}
    answer = api(carl).post("/api/v1/challenges/clinic/join", giant, content_type="application/json")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (413, "too_large")


def test_everybody_sees_published_challenges_and_nobody_a_draft(
    clinic: Challenge, api: Any, carl: Any, olga: Any
) -> None:
    assert [one["slug"] for one in api().get("/api/v1/challenges").json()["results"]] == ["clinic"]
    Challenge.objects.update(status=Challenge.Status.DRAFT)
    assert api(carl).get("/api/v1/challenges/clinic").status_code == 404
    assert api(olga).get("/api/v1/challenges/clinic").status_code == 200


def test_a_challenge_tells_its_columns_but_not_the_patient_id(clinic: Challenge, api: Any) -> None:
    facts = api().get("/api/v1/challenges/clinic").json()
    assert [column["name"] for column in facts["columns"]] == ["age", "sex", "glucose", "diabetes"]
    assert facts["target"] == "diabetes"


def test_joining_needs_the_rules_accepted(clinic: Challenge, api: Any, carl: Any) -> None:
    client = api(carl)
    url = "/api/v1/challenges/clinic/join"
    refused = client.post(url, {"team": "Carl", "accept_rules": False}, content_type="application/json")
    assert (refused.status_code, refused.json()["errors"][0]["attr"]) == (400, "accept_rules")
    taken = client.post(url, {"team": "Carl", "accept_rules": True}, content_type="application/json")
    assert (taken.status_code, taken.json()) == (201, {"team": "Carl"})
    again = client.post(url, {"team": "Carl 2", "accept_rules": True}, content_type="application/json")
    assert again.status_code == 409


def test_an_entry_is_announced_uploaded_and_goes_on_to_its_check(
    clinic: Challenge, teams: Any, api: Any, ada: Any
) -> None:
    client = api(ada)
    entry = announce(client).json()
    assert (entry["state"], entry["name"], entry["upload"]["offset"]) == ("uploading", "lira", 0)
    url = entry["upload"]["url"]
    assert patch(client, url, 0, b"01234")["Upload-Offset"] == "5"
    head = client.head(url)
    assert (head["Upload-Offset"], head["Upload-Length"], head["Tus-Resumable"]) == ("5", "10", "1.0.0")
    assert patch(client, url, 3, b"xx").status_code == 409
    assert patch(client, url, 5, b"56789").status_code == 204
    assert client.get(f"/api/v1/submissions/{entry['id']}").json()["state"] == "checking"


@pytest.mark.parametrize("offset", ["", "-1", "five", "9" * 30])
def test_offsets_that_are_no_numbers(clinic: Challenge, teams: Any, api: Any, ada: Any, offset: str) -> None:
    client = api(ada)
    url = announce(client).json()["upload"]["url"]
    assert patch(client, url, 0, b"x", **{"Upload-Offset": offset}).status_code == 400


def test_the_quota_is_told_with_status_409(clinic: Challenge, teams: Any, api: Any, ada: Any) -> None:
    client = api(ada)
    for _ in range(clinic.daily_quota):
        assert announce(client).status_code == 201
    refused = announce(client)
    assert refused.status_code == 409
    assert "last 24 hours" in refused.json()["errors"][0]["detail"]


def test_other_teams_entries_do_not_exist(
    clinic: Challenge, teams: Any, api: Any, ada: Any, ben: Any, carl: Any
) -> None:
    entry = announce(api(ada)).json()
    for stranger in (api(ben), api(carl)):
        for method, path in [("get", ""), ("get", "/log"), ("post", "/withdraw"), ("post", "/choose")]:
            assert getattr(stranger, method)(f"/api/v1/submissions/{entry['id']}{path}").status_code == 404
        assert stranger.head(entry["upload"]["url"]).status_code == 404
        assert patch(stranger, entry["upload"]["url"], 0, b"mine").status_code == 404
        assert stranger.delete(entry["upload"]["url"]).status_code == 404
    assert api().get(f"/api/v1/submissions/{entry['id']}").status_code == 401


def test_an_organiser_reads_entries_but_does_not_change_them(
    clinic: Challenge, teams: Any, api: Any, ada: Any, olga: Any
) -> None:
    entry = announce(api(ada)).json()
    assert api(olga).get(f"/api/v1/submissions/{entry['id']}").status_code == 200
    assert api(olga).post(f"/api/v1/submissions/{entry['id']}/withdraw").status_code == 403


def test_a_failure_is_told_with_sentence_and_hint(clinic: Challenge, teams: Any, api: Any, ada: Any) -> None:
    entry = announce(api(ada)).json()
    submission = Submission.objects.get(pk=entry["id"])
    flow.fail(submission, Reason.IMAGE_INVALID, detail="The file is not a tar archive.")
    failure = api(ada).get(f"/api/v1/submissions/{entry['id']}").json()["failure"]
    assert failure["reason"] == "image_invalid"
    assert failure["sentence"]
    assert failure["hint"]
    assert failure["detail"] == "The file is not a tar archive."


def test_programs_read_the_same_words_as_people(ready: Any, api: Any, ada: Any) -> None:
    entry = ready("ada", "defense")
    Submission.objects.update(state="failed", failure_reason="rehearsal_failed", failure_cause="timeout")
    failure = api(ada).get(f"/api/v1/submissions/{entry.pk}").json()["failure"]
    assert (failure["reason"], failure["cause"], failure["hint"]) == ("rehearsal_failed", "timeout", hint("timeout"))
    for sentence in (failure["sentence"], failure["hint"]):
        assert sentence in html.unescape(page_of(ada, entry))


def test_times_on_private_data_are_coarse(ready: Any, api: Any, ada: Any) -> None:
    entry = ready("ada", "defense")
    Run.objects.update(seconds=31.2)
    steps = api(ada).get(f"/api/v1/submissions/{entry.pk}").json()["steps"]
    assert {(step["rehearsal"], step["seconds"]) for step in steps} == {(True, 32), (False, 60)}


def test_boards_and_matrix_are_public_and_hide_exact_numbers(clinic: Challenge, ready: Any, api: Any) -> None:
    ready("ada", "defense")
    Standing.objects.update(utility=0.123456, public_utility=0.12)
    row = api().get("/api/v1/challenges/clinic/boards").json()["defenses"][0]
    assert (row["team"], row["utility"], row["rank"]) == ("Team Ada", 0.12, None)
    assert api().get("/api/v1/challenges/clinic/matrix").json()["cells"] == []


def test_the_sample_is_a_parquet_file(clinic: Challenge, api: Any) -> None:
    body = b"".join(api().get("/api/v1/challenges/clinic/sample").streaming_content)
    assert body[:4] == b"PAR1"
    assert b"canary" not in body
