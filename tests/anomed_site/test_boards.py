"""The boards and the matrix: what they say, what they cost, and how browsers keep them fresh."""

import html
from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from challenges.models import Challenge
from challenges.scenarios import registry
from challenges.scenarios.base import Scenario
from submissions.boards import board
from submissions.models import Duel, Standing, Submission, Team

pytestmark = pytest.mark.django_db

Field = Callable[[int], list[Submission]]
HTMX = {"HX-Request": "true"}


def queries(browser: Client, url: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert browser.get(url).status_code == 200
    return len(captured)


@pytest.mark.parametrize("name", ["challenge_boards", "challenge_matrix", "challenge_submissions"])
@pytest.mark.parametrize("who", ["anonymous", "ada", "olga"])
def test_the_number_of_queries_does_not_grow(
    browsers: dict[str, Client], clinic: Challenge, field: Field, name: str, who: str
) -> None:
    url = reverse(name, args=[clinic.slug])
    field(2)
    few = queries(browsers[who], url)
    field(28)
    assert queries(browsers[who], url) == few


@pytest.mark.parametrize("scenario", registry.SCENARIOS.values(), ids=lambda scenario: scenario.slug)
def test_pages_speak_the_words_of_their_game(clinic: Challenge, scenario: Scenario) -> None:
    Challenge.objects.update(scenario=scenario.slug)
    boards, matrix = (
        html.unescape(Client().get(reverse(name, args=[clinic.slug])).content.decode())
        for name in ("challenge_boards", "challenge_matrix")
    )
    assert str(scenario.words.worst_leak) in boards
    assert str(scenario.words.first_attack) in boards
    assert str(scenario.words.cells) in matrix
    is_about_membership = "auc" in scenario.readings
    for page in (boards, matrix):
        assert ("who was in the data" in page) == is_about_membership
        assert is_about_membership or "membership" not in page.lower()


def test_the_board_ranks_and_marks_ones_own(browsers: dict[str, Client], clinic: Challenge, field: Field) -> None:
    field(2)
    page = browsers["ada"].get(reverse("challenge_boards", args=[clinic.slug])).content.decode()
    assert page.index("defense-0") < page.index("defense-1")
    assert page.count('class="is-own"') == 2
    assert 'medal medal-1">1<' in page
    assert "<caption" in page
    assert "defense-0: utility 0.80, privacy 0.90." in page  # the picture in words


def test_entries_that_cannot_be_told_apart_share_their_ranks(
    browsers: dict[str, Client], clinic: Challenge, field: Field
) -> None:
    defenses = field(3)[:3]
    Standing.objects.filter(submission__in=defenses[:2]).update(band=1)
    Standing.objects.filter(submission=defenses[2]).update(band=2)
    rows = board(challenge=clinic, kind="defense")
    assert [(row.rank, row.rank_last, row.ranks) for row in rows] == [(1, 2, "1–2"), (1, 2, "1–2"), (3, 3, "3")]
    page = browsers["anonymous"].get(reverse("challenge_boards", args=[clinic.slug])).content.decode()
    assert page.count(">1–2<") == 2
    assert page.count('medal-1 is-shared"') == 2


def test_a_row_whose_numbers_have_just_changed_has_no_rank_and_takes_no_place_from_others(
    browsers: dict[str, Client], clinic: Challenge, field: Field
) -> None:
    defenses = field(3)[:3]
    Standing.objects.filter(submission=defenses[1]).update(band=None, intervals={})
    rows = board(challenge=clinic, kind="defense")
    assert [(row.rank, row.rank_last) for row in rows] == [(1, 1), (None, None), (3, 3)]
    page = browsers["anonymous"].get(reverse("challenge_boards", args=[clinic.slug])).content.decode()
    assert "its rank is being worked out" in page
    assert "its interval is being worked out" in page


def test_numbers_are_shown_with_intervals_and_drawn_as_dots_with_bars(
    browsers: dict[str, Client], clinic: Challenge, field: Field
) -> None:
    field(1)
    page = browsers["anonymous"].get(reverse("challenge_boards", args=[clinic.slug])).content.decode()
    assert "95 % interval: 0.78 to 0.82" in page  # utility 0.80, of exactly 0.8123 from 0.8000 to 0.8246
    assert 'role="img" aria-label="Score 80.0, with other patients between 75 and 86"' in page
    assert page.count('<svg class="dots"') == 2
    assert "style=" not in page[page.index('<svg class="dots"') :].split("</svg>")[0]


def test_a_published_interval_tells_no_more_than_the_published_number(clinic: Challenge, field: Field) -> None:
    field(1)
    (row,) = board(challenge=clinic, kind="defense")
    for name, (low, high) in row.intervals.items():
        grain = 1 if name == "score" else 0.01
        assert low / grain == pytest.approx(round(low / grain))
        assert high / grain == pytest.approx(round(high / grain))
        assert low <= getattr(row, name) <= high
    Standing.objects.update(utility=0.8149, intervals={"utility": [0.8026, 0.8272]})  # all moved by the same
    (moved,) = board(challenge=clinic, kind="defense")
    assert moved.intervals["utility"] == row.intervals["utility"]
    (exact,) = board(challenge=clinic, kind="defense", organiser=True)
    assert exact.intervals["utility"] == (0.8026, 0.8272)


@pytest.mark.parametrize(
    ("ranking", "said"),
    [("harmonic", "the harmonic mean"), ("pareto", "Pareto fronts"), ("epsilon", "an audit proves"), ("gate", "alone")],
)
def test_the_board_says_which_ranking_is_used(client: Client, clinic: Challenge, ranking: str, said: str) -> None:
    Challenge.objects.update(ranking=ranking)
    page = client.get(reverse("challenge_boards", args=[clinic.slug])).content.decode()
    assert said in page.split("ranked-by")[1].split("</p>")[0]
    assert ("data-chart-curves" in page) == (ranking == "harmonic")
    assert said in client.get("/api/v1/challenges/clinic/boards").json()["ranked_by"]


def test_novelty_has_a_column_where_there_is_a_prize_for_it(client: Client, clinic: Challenge, field: Field) -> None:
    field(1)
    Standing.objects.filter(submission__kind="attack").update(
        facts={"novelty": 0.0349}, intervals={"novelty": [0.01, 0.06]}
    )
    url = reverse("challenge_boards", args=[clinic.slug])
    assert "0.03<" not in client.get(url).content.decode()
    Challenge.objects.update(novelty_prize=True)
    page = client.get(url).content.decode()
    assert "95 % interval: 0.00 to 0.06" in page


def test_organisers_see_exact_figures(browsers: dict[str, Client], clinic: Challenge, field: Field) -> None:
    field(1)
    url = reverse("challenge_boards", args=[clinic.slug])
    Standing.objects.update(utility=0.7444)
    assert "0.74<" in browsers["olga"].get(url).content.decode()
    assert "0.74<" not in browsers["ada"].get(url).content.decode()


def test_anchors_are_shown_without_a_rank(
    browsers: dict[str, Client], clinic: Challenge, ready: Callable[..., Submission]
) -> None:
    ready("olga", "defense", role="trivial", name="majority")
    page = browsers["anonymous"].get(reverse("challenge_boards", args=[clinic.slug])).content.decode()
    assert "is-anchor" in page
    assert "trivial anchor" in page
    assert "not ranked" in page


@pytest.mark.parametrize("name", ["challenge_boards", "challenge_matrix"])
def test_an_empty_board_says_what_to_do_next(client: Client, clinic: Challenge, name: str) -> None:
    page = client.get(reverse(name, args=[clinic.slug])).content.decode()
    assert 'class="empty' in page
    assert reverse("submit", args=[clinic.slug]) in page


def test_the_matrix_names_every_cell(client: Client, clinic: Challenge, field: Field, teams: dict[str, Team]) -> None:
    field(2)
    pending, failed = Duel.objects.all()[:2]
    Duel.objects.filter(pk=pending.pk).update(state="pending", mean_leak=None)
    Duel.objects.filter(pk=failed.pk).update(state="failed", mean_leak=None)
    page = client.get(reverse("challenge_matrix", args=[clinic.slug])).content.decode()
    assert page.count('class="cell heat-4"') == 2  # 0.12
    assert "to come</span>" in page
    assert 'is-failed">failed<' in page


@pytest.mark.parametrize("name", ["challenge_boards", "challenge_matrix", "challenge_submissions"])
def test_htmx_gets_the_fragment_alone(client: Client, clinic: Challenge, name: str) -> None:
    url = reverse(name, args=[clinic.slug])
    whole, part = client.get(url), client.get(url, headers=HTMX)
    assert "<html" in whole.content.decode()
    assert "<html" not in part.content.decode()
    assert "HX-Request" in whole.headers["Vary"]
    assert "no-cache" in part.headers["Cache-Control"]
    assert "ETag" not in whole.headers  # its forms carry tokens


def test_an_unchanged_fragment_is_not_sent_again(browsers: dict[str, Client], clinic: Challenge, field: Field) -> None:
    field(1)
    url = reverse("challenge_boards", args=[clinic.slug])
    browser = browsers["ada"]
    etag = browser.get(url, headers=HTMX).headers["ETag"]
    same = browser.get(url, headers={**HTMX, "If-None-Match": etag})
    assert (same.status_code, same.content) == (304, b"")
    assert "HX-Request" in same.headers["Vary"]
    clinic.mark_changed()
    assert browser.get(url, headers={**HTMX, "If-None-Match": etag}).status_code == 200
    etag = browser.get(url, headers=HTMX).headers["ETag"]
    assert browsers["ben"].get(url, headers={**HTMX, "If-None-Match": etag}).status_code == 200
    assert browser.get(url, headers={**HTMX, "If-None-Match": etag, "Accept-Language": "de"}).status_code == 200


def test_an_entrys_fragment_changes_when_one_of_its_runs_starts(
    browsers: dict[str, Client], ready: Callable[..., Submission]
) -> None:
    entry = ready("ada", "defense")
    url = reverse("submission", args=[entry.pk])
    etag = browsers["ada"].get(url, headers=HTMX).headers["ETag"]
    assert browsers["ada"].get(url, headers={**HTMX, "If-None-Match": etag}).status_code == 304
    run = entry.steps.get(name="fit", phase__isnull=False).run
    type(run).objects.filter(pk=run.pk).update(state="running")
    assert browsers["ada"].get(url, headers={**HTMX, "If-None-Match": etag}).status_code == 200
