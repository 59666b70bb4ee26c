"""Every page as several kinds of person: who gets what, and that no page needs more than the policy allows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from anomed_site import pages
from challenges.models import Challenge
from challenges.scenarios import registry
from sandbox.models import Host
from submissions.models import Submission
from tests.anomed_site.conftest import WHO, add_run

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]
SIGN_IN = 302  # to the sign-in page

# Who gets which status, in the order of WHO: anonymous, Carl (no team), Ada (the entry is hers), Ben, Olga (organiser).
PUBLIC = (200, 200, 200, 200, 200)
PAGES = {
    "home": PUBLIC,
    "challenge_list": PUBLIC,
    "docs": PUBLIC,
    "robots": PUBLIC,
    "healthz": PUBLIC,
    "profile": (SIGN_IN, 200, 200, 200, 200),
}
CHALLENGE_PAGES = {
    "challenge": PUBLIC,
    "challenge_data": PUBLIC,
    "challenge_sample": PUBLIC,
    "challenge_rules": PUBLIC,
    "challenge_boards": PUBLIC,
    "challenge_matrix": PUBLIC,
    "challenge_submissions": PUBLIC,
    "challenge_join": (SIGN_IN, 200, 302, 302, 200),  # who has joined is sent to their entries
    "submit": (SIGN_IN, 302, 200, 200, 200),  # who has not joined is sent to join
}
ENTRY_PAGES = {
    "submission": (SIGN_IN, 404, 200, 404, 200),
    "submission_log": (SIGN_IN, 404, 200, 404, 200),
}
ENTRY_POSTS = {
    "submission_withdraw": (SIGN_IN, 404, 302, 404, 403),  # an organiser reads entries of teams, and leaves them alone
    "submission_choose": (SIGN_IN, 404, 302, 404, 403),
}


def assert_statuses(browsers: dict[str, Client], url: str, expected: tuple[int, ...]) -> None:
    """Asks for a page as each kind of person."""
    seen = tuple(browsers[who].get(url).status_code for who in WHO)
    assert seen == expected, url


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_the_site(browsers: dict[str, Client], name: str) -> None:
    assert_statuses(browsers, reverse(name), PAGES[name])


@pytest.mark.parametrize("name", CHALLENGE_PAGES)
def test_pages_of_a_challenge(browsers: dict[str, Client], clinic: Challenge, name: str) -> None:
    assert_statuses(browsers, reverse(name, args=[clinic.slug]), CHALLENGE_PAGES[name])


@pytest.mark.parametrize("name", CHALLENGE_PAGES)
def test_a_draft_exists_for_its_organisers_only(browsers: dict[str, Client], clinic: Challenge, name: str) -> None:
    Challenge.objects.filter(pk=clinic.pk).update(status="draft")
    url = reverse(name, args=[clinic.slug])
    assert browsers["olga"].get(url).status_code == 200
    assert {browsers[who].get(url).status_code for who in WHO if who != "olga"} <= {404, SIGN_IN}


@pytest.mark.parametrize("name", ENTRY_PAGES)
def test_an_entry_is_for_its_team_and_the_organisers(browsers: dict[str, Client], ready: Ready, name: str) -> None:
    assert_statuses(browsers, reverse(name, args=[ready("ada", "defense").pk]), ENTRY_PAGES[name])


@pytest.mark.parametrize("name", ENTRY_POSTS)
def test_only_the_team_changes_an_entry(browsers: dict[str, Client], ready: Ready, name: str) -> None:
    url = reverse(name, args=[ready("ada", "defense").pk])
    assert tuple(browsers[who].post(url).status_code for who in WHO) == ENTRY_POSTS[name]
    assert browsers["ada"].get(url).status_code == 405


def test_the_log_of_a_private_run_is_for_organisers(browsers: dict[str, Client], ready: Ready) -> None:
    entry = ready("ada", "defense")
    run = add_run(entry, "fit", private=True, seconds=12.345, peak_memory_mb=777)
    run.folder.mkdir(parents=True)
    run.log_path.write_bytes(b"age 54, a secret of the data")
    url = reverse("submission_log", args=[entry.pk])
    private = f"{url}?run={run.pk}"
    assert tuple(browsers[who].get(private).status_code for who in WHO) == (SIGN_IN, 404, 404, 404, 200)
    assert "a secret of the data" in browsers["olga"].get(private).content.decode()
    for page in (url, reverse("submission", args=[entry.pk])):
        assert "a secret of the data" not in browsers["ada"].get(page).content.decode()


def test_exact_times_and_memory_are_for_organisers(browsers: dict[str, Client], ready: Ready) -> None:
    entry = ready("ada", "defense")
    add_run(entry, "fit", private=True, seconds=12.345, peak_memory_mb=777)
    url = reverse("submission", args=[entry.pk])
    team, organiser = (browsers[who].get(url).content.decode() for who in ("ada", "olga"))
    assert "up to 30 s" in team
    assert "12.3" not in team
    assert "777" not in team
    assert "12.3" in organiser
    assert "777" in organiser


def test_the_log_of_the_rehearsal_is_shown_as_text(browsers: dict[str, Client], ready: Ready) -> None:
    entry = ready("ada", "attack")
    run = entry.steps.get(phase=None, name="attack").run
    run.folder.mkdir(parents=True, exist_ok=True)
    run.log_path.write_bytes(b"\x1b[31m<script>alert(1)</script>\x1b[0m\x07 \xff done")
    page = browsers["ada"].get(reverse("submission_log", args=[entry.pk])).content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \ufffd done" in page


def test_a_failed_rehearsal_is_named_with_a_hint_and_the_end_of_its_log(
    browsers: dict[str, Client], ready: Ready
) -> None:
    entry = ready("ada", "attack")
    run = entry.steps.get(phase=None, name="attack").run
    run.folder.mkdir(parents=True, exist_ok=True)
    run.log_path.write_bytes(b"KeyError: glucose")
    type(run).objects.filter(pk=run.pk).update(state="failed", reason="crashed")
    Submission.objects.filter(pk=entry.pk).update(
        state="failed", active=False, failure_reason="rehearsal_failed", failure_cause="crashed"
    )
    page = browsers["ada"].get(reverse("submission", args=[entry.pk])).content.decode()
    for text in ("Rehearsal failed", "The container ended with an error.", "What to do:", "KeyError: glucose"):
        assert text in page


def all_urls(clinic: Challenge, entry: Submission) -> list[str]:
    urls = [reverse(name) for name in PAGES if name not in {"robots", "healthz"}]
    urls += [reverse(name, args=[clinic.slug]) for name in CHALLENGE_PAGES if name != "challenge_sample"]
    urls += [reverse(name, args=[entry.pk]) for name in ENTRY_PAGES]
    urls += [reverse(name) for name in ("account_login", "account_signup", "account_reset_password", "account_email")]
    urls += [reverse(name) for name in ("account_change_password", "mfa_index", "account_logout", "admin:index")]
    return [*urls, reverse("admin:challenges_challenge_changelist"), "/there-is-nothing-here/"]


@pytest.mark.parametrize("who", ["anonymous", "ada", "ben"])
def test_nothing_tells_on_which_host_a_run_was(
    browsers: dict[str, Client], clinic: Challenge, ready: Ready, who: str
) -> None:
    host = Host.objects.create(name="cellar-gpu-4711", url="tcp://192.0.2.47:2376", walls=["gvisor"])
    entry = ready("ada", "defense")
    add_run(entry, "fit", private=True, state="running", host=host, worker="cellar-gpu-4711:1:2")
    add_run(entry, "predict", private=True, host=host, worker="cellar-gpu-4711:1:2")
    urls = all_urls(clinic, entry)
    urls += [reverse(name, args=[clinic.slug]) for name in ("api-boards", "api-matrix", "api-challenge", "api-entries")]
    urls += [reverse(name, args=[entry.pk]) for name in ("api-entry", "api-entry-log")]
    for url in urls:
        answer = browsers[who].get(url).content.decode()
        assert "cellar-gpu" not in answer, url
        assert "192.0.2.47" not in answer, url


INLINE = re.compile(
    r"""<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:|<script(?![^>]*(\ssrc=|type="application/json"))""", re.IGNORECASE
)


@pytest.mark.parametrize("who", WHO)
def test_no_page_holds_inline_scripts_or_styles(
    browsers: dict[str, Client], clinic: Challenge, ready: Ready, field: Any, who: str
) -> None:
    field(2)
    for url in all_urls(clinic, ready("ada", "defense")):
        answer = browsers[who].get(url)
        page = answer.content.decode()
        assert not INLINE.search(page), (url, INLINE.search(page))
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


def test_the_pattern_finds_inline_scripts_and_styles() -> None:
    for bad in ("<script>x()</script>", '<p style="color:red">', '<a onclick="x()">', "<style>p{}</style>"):
        assert INLINE.search(bad), bad
    assert not INLINE.search('<script src="/x.js" defer></script> <p class="style-guide">version="1"')


@pytest.mark.parametrize("who", WHO)
def test_everything_comes_from_this_server(
    browsers: dict[str, Client], clinic: Challenge, ready: Ready, who: str
) -> None:
    for url in all_urls(clinic, ready("ada", "defense")):
        page = browsers[who].get(url).content.decode()
        loaded = re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']([^"']*)""", page)
        assert all(address.startswith(("/", "data:")) and not address.startswith("//") for address in loaded), url


def test_every_vendored_file_says_its_licence_and_version() -> None:
    folders = [folder for folder in Path(settings.BASE_DIR / "anomed_site/static/vendor").iterdir() if folder.is_dir()]
    assert {folder.name for folder in folders} >= {"bootstrap", "echarts", "tus-js-client"}
    for folder in folders:
        assert (folder / "LICENSE").is_file(), folder
        assert re.search(r"\d+\.\d+\.\d+", (folder / "VERSION").read_text()), folder


def test_texts_are_shown_in_the_readers_language(browsers: dict[str, Client], clinic: Challenge) -> None:
    browser = browsers["anonymous"]
    assert "Clinic" in browser.get(reverse("challenge", args=[clinic.slug])).content.decode()
    browser.post(reverse("set_language"), {"language": "de", "next": "/"})
    page = browser.get(reverse("challenge", args=[clinic.slug])).content.decode()
    assert '<html lang="de"' in page
    assert "Klinik" in page


def test_what_went_wrong_is_said_on_a_page_of_the_site(client: Client) -> None:
    answer = client.get("/no/such/page")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.content.decode()


def test_joining_asks_for_the_rules(browsers: dict[str, Client], clinic: Challenge) -> None:
    url = reverse("challenge_join", args=[clinic.slug])
    page = browsers["carl"].post(url, {"team": "Team Carl"}).content.decode()
    assert "is-invalid" in page
    assert not clinic.teams.filter(name="Team Carl").exists()
    taken = browsers["carl"].post(url, {"team": "Team Ada", "accept_rules": "on"}).content.decode()
    assert "Another team has this name" in taken
    answer = browsers["carl"].post(url, {"team": "Team Carl", "accept_rules": "on"}, follow=True)
    assert answer.redirect_chain == [(reverse("submit", args=[clinic.slug]), 302)]
    assert "Welcome, Team Carl" in answer.content.decode()


def test_withdrawing_and_choosing_say_what_they_did(browsers: dict[str, Client], ready: Ready) -> None:
    entry = ready("ada", "defense")
    out = browsers["ada"].post(reverse("submission_choose", args=[entry.pk]), {"active": "0"}, follow=True)
    assert "takes part in no more duels" in out.content.decode()
    entry.refresh_from_db()
    assert not entry.active
    gone = browsers["ada"].post(reverse("submission_withdraw", args=[entry.pk]), follow=True)
    assert "is withdrawn" in gone.content.decode()
    again = browsers["ada"].post(reverse("submission_withdraw", args=[entry.pk]), follow=True)
    assert "This entry is over already." in again.content.decode()


def test_the_sample_is_the_public_file(client: Client, clinic: Challenge) -> None:
    answer = client.get(reverse("challenge_sample", args=[clinic.slug]))
    assert b"".join(answer) == clinic.dataset.sample_path.read_bytes()  # type: ignore[arg-type]
    assert "clinic-sample.parquet" in answer.headers["Content-Disposition"]


def test_the_patient_id_is_not_among_the_columns(client: Client, clinic: Challenge) -> None:
    page = client.get(reverse("challenge_data", args=[clinic.slug])).content.decode()
    assert "<code>glucose</code>" in page
    assert "<code>patient</code>" not in page


def test_documents_and_pages_of_scenarios_are_guides(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "organisers.md").write_text("# For organisers", encoding="utf-8")
    (tmp_path / "scenarios" / "traces.md").write_text("# Traces\n\n[back](../organisers.md)", encoding="utf-8")
    (tmp_path / "scenarios" / "traces.de.md").write_text("# Spuren", encoding="utf-8")
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    contents = client.get(reverse("docs")).content.decode()
    assert contents.index("For organisers") < contents.index("Traces")
    page = client.get(reverse("docs_page", args=["traces"])).content.decode()
    assert f'href="{reverse("docs_page", args=["organisers"])}"' in page
    german = client.get(reverse("docs_page", args=["traces"]), headers={"Accept-Language": "de"})
    assert "Spuren" in german.content.decode()


@pytest.mark.parametrize("scenario", sorted(registry.SCENARIOS))
def test_every_game_is_explained(client: Client, scenario: str) -> None:
    page = client.get(reverse("docs_page", args=[scenario]))
    assert page.status_code == 200
    assert f"<code>{scenario}</code>" in page.content.decode()


def test_the_overview_of_a_challenge_leads_to_its_game(client: Client, clinic: Challenge) -> None:
    page = client.get(reverse("challenge", args=[clinic.slug])).content.decode()
    assert f'href="{reverse("docs_page", args=[clinic.scenario])}"' in page


def test_documents_have_their_pictures(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proof").mkdir()
    (tmp_path / "proof.md").write_text("# Proof\n\n![a curve](proof/curve.svg)", encoding="utf-8")
    (tmp_path / "proof" / "curve.svg").write_text("<svg/>", encoding="utf-8")
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    address = reverse("docs_picture", args=["proof", "curve"])
    assert f'<img src="{address}" alt="a curve">' in client.get(reverse("docs_page", args=["proof"])).content.decode()
    picture = client.get(address)
    assert (picture.content, picture.headers["Content-Type"]) == (b"<svg/>", "image/svg+xml")
    assert "script-src 'self'" in picture.headers["Content-Security-Policy"]
    assert client.get(reverse("docs_picture", args=["proof", "another"])).status_code == 404
