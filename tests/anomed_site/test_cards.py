"""The risk card as a page: who gets it, what it says in both languages, and that it keeps to the policy."""

import re
from dataclasses import replace

import pytest
from django.test import Client
from django.urls import reverse

from anomed_site.templatetags import cards
from challenges.models import Challenge
from challenges.scenarios import registry
from challenges.scenarios.base import Scenario
from submissions import evidence, exposure
from submissions.evidence import Estimate, Finding
from submissions.models import Duel, Standing, Submission
from tests.anomed_site.conftest import WHO
from tests.anomed_site.test_pages import INLINE, assert_statuses

pytestmark = pytest.mark.django_db


@pytest.fixture
def card(met: Submission) -> str:
    """The address of a card with everything on it."""
    exposure.measure_due()
    return reverse("card", args=["clinic", met.pk])


def words(page: bytes) -> str:
    """The page's text, on one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.decode()).split())


def test_everybody_reads_cards_of_the_boards(browsers: dict[str, Client], card: str, met: Submission) -> None:
    assert_statuses(browsers, card, (200, 200, 200, 200, 200))
    Submission.objects.filter(pk=met.pk).update(active=False)
    assert_statuses(browsers, card, (404, 404, 200, 404, 200))


def test_attacks_and_fresh_defenses_have_none(browsers: dict[str, Client], met: Submission) -> None:
    attack = Duel.objects.all()[0].attack
    assert_statuses(browsers, reverse("card", args=["clinic", attack.pk]), (404,) * 5)
    Standing.objects.update(utility=None)
    assert_statuses(browsers, reverse("card", args=["clinic", met.pk]), (404,) * 5)


def test_each_number_is_a_sentence(client: Client, card: str) -> None:
    page = words(client.get(card).content)
    row = Standing.objects.get(submission__name="linear")
    assert f"{round(100 * row.public_utility)} of 100 parts of the usefulness remain" in page  # type: ignore[operator]
    right = re.search(r"the best attack is right (\d+) times \(\d+ to \d+\)\. Guessing is right 50 times\.", page)
    assert right is not None
    assert 60 <= int(right.group(1)) <= 95
    assert re.search(r"it recognises \d+ of 100 people who are \(\d+ to \d+\)\. Guessing would recognise 10\.", page)
    assert re.search(r"Of 100 people in the data, the number who stand out beyond chance is \d+ \(\d+ to \d+\)\.", page)
    assert "The attack is “sharp” of Team Ben. 3 attacks were tried." in page
    assert "The team declares no guarantee by differential privacy." in page
    assert "What this card does not show" in page
    assert "Singling out: it was not measured." in page


def test_likeness_is_a_sentence_per_number(client: Client, card: str, met: Submission) -> None:
    assert "like the real data" not in words(client.get(card).content)  # this game measures none
    met.releases.update(facts={"similarity": {"columns": 0.914, "pairs": 0.8, "by_column": {"glucose": 0.7}}})
    page = words(client.get(card).content)
    assert "Column by column it is 91 of 100 parts like the real data" in page
    assert "In how two columns go together, such as age and weight, it is 80 of 100 parts like the real data." in page
    assert "In how many cells are empty" not in page
    assert "Likeness is not ranked by" in page


@pytest.mark.parametrize("scenario", registry.SCENARIOS.values(), ids=lambda scenario: scenario.slug)
def test_every_leak_of_every_scenario_has_a_sentence(scenario: Scenario) -> None:
    for metric in (*scenario.readings, "HbA1c"):
        finding = Finding(metric, Estimate(0.4), Estimate(0.43, 0.39, 0.47), chance=0.07)
        said = cards.sentence(finding, scenario.slug)
        assert re.search(r"\b43\b", said)
        assert "39" in said
        assert re.search(r"\b7\b", said)
        assert said.endswith(".")
        assert "%(" not in said


def test_a_declaration_is_shown_as_one(client: Client, card: str, met: Submission) -> None:
    Submission.objects.filter(pk=met.pk).update(declared_epsilon=0.001, declared_delta=1e-5)
    page = words(client.get(card).content)
    assert "Declared, not verified: differential privacy with epsilon 0.001 and delta 0.00001." in page
    assert "That cannot be right: the best attack shows that epsilon is at least" in page


def test_a_leak_that_may_be_none_is_called_so(client: Client, card: str, met: Submission) -> None:
    Standing.objects.filter(submission=met).update(
        worst_leak=0.07, public_worst_leak=0.07, intervals={"worst_leak": [-0.02, 0.12]}
    )
    assert "perhaps a leak" in words(client.get(card).content)
    Standing.objects.filter(submission=met).update(intervals={"worst_leak": [0.03, 0.12]})
    assert "noticeable leak" in words(client.get(card).content)


def test_an_organisers_defense_has_no_team_that_declares(client: Client, card: str, met: Submission) -> None:
    Submission.objects.filter(pk=met.pk).update(team=None, role="trivial")
    page = words(client.get(card).content)
    assert "The team declares" not in page
    assert "No guarantee by differential privacy is declared: the organisers entered this defense" in page


LEAKS = {
    "none": Estimate(0.0, 0.0, 0.06),
    "unknown": Estimate(0.02, 0.0, 0.31),
    "perhaps": Estimate(0.07, 0.0, 0.12),
    "some": Estimate(0.09, 0.04, 0.14),
    "large": Estimate(0.3, 0.2, 0.4),
}
PEOPLE = {
    "none": Estimate(0.0, -0.02, 0.02),
    "unknown": Estimate(0.01, -0.07, 0.09),
    "few": Estimate(0.04, 0.01, 0.06),
    "many": Estimate(0.3, 0.25, 0.35),
}
# The words for the leak and for the people, wherever the two meet.
VERDICTS = {
    ("none", "none"): ("small leak", "no more than chance"),
    ("none", "unknown"): ("small leak", "cannot be told"),
    ("none", "few"): ("small on average", "a few people"),
    ("none", "many"): ("small on average", "many people"),
    ("unknown", "none"): ("cannot be told", "no more than chance"),
    ("unknown", "unknown"): ("cannot be told", "cannot be told"),
    ("unknown", "few"): ("small on average", "a few people"),
    ("unknown", "many"): ("small on average", "many people"),
    ("perhaps", "none"): ("perhaps a leak", "no more than chance"),
    ("perhaps", "unknown"): ("perhaps a leak", "cannot be told"),
    ("perhaps", "few"): ("perhaps a leak", "a few people"),
    ("perhaps", "many"): ("perhaps a leak", "many people"),
    ("some", "none"): ("noticeable leak", "nobody in particular"),
    ("some", "unknown"): ("noticeable leak", "nobody in particular"),
    ("some", "few"): ("noticeable leak", "a few people"),
    ("some", "many"): ("noticeable leak", "many people"),
    ("large", "none"): ("large leak", "nobody in particular"),
    ("large", "unknown"): ("large leak", "nobody in particular"),
    ("large", "few"): ("large leak", "a few people"),
    ("large", "many"): ("large leak", "many people"),
}


def test_both_verdicts_follow_one_rule(met: Submission) -> None:
    exposure.measure_due()
    card = evidence.card(met)
    assert card is not None
    assert card.exposure is not None
    for (leak, people), expected in VERDICTS.items():
        found = replace(card, worst_leak=LEAKS[leak], exposure=replace(card.exposure, share=PEOPLE[people], noise=0.02))
        verdicts = cards.leaking(found), cards.standing_out(found)
        assert tuple(str(verdict.word) for verdict in verdicts) == expected, (leak, people)
        # where one of them finds something, the other gives no all-clear
        if leak in ("some", "large") or people in ("few", "many"):
            assert "good" not in {verdict.level for verdict in verdicts}


def test_one_number_alone_has_its_verdict_too(met: Submission) -> None:
    exposure.measure_due()
    card = evidence.card(met)
    assert card is not None
    assert card.exposure is not None
    assert cards.leaking(replace(card, worst_leak=LEAKS["none"], exposure=None)).level == "good"
    alone = replace(card, worst_leak=None, exposure=replace(card.exposure, share=PEOPLE["none"], noise=0.02))
    assert cards.standing_out(alone).level == "good"
    at_the_noise = replace(alone.exposure, share=Estimate(0.06, -0.01, 0.13), noise=0.05)  # type: ignore[type-var]
    assert cards.standing_out(replace(alone, exposure=at_the_noise)).level == "bad"


def test_colour_is_never_alone(client: Client, card: str) -> None:
    page = client.get(card).content.decode()
    signs = re.findall(r'<span aria-hidden="true">([●▲■])</span> ([a-z ]+)<', page)
    assert len(signs) == 6  # three verdicts, three criteria
    assert page.count('role="img"') == page.count('<svg class="card-') == 4
    assert all(re.search(r'aria-label="[^"]{10,}"', svg) for svg in re.findall(r'<svg class="card-[^>]*>', page))


def test_the_card_speaks_german(browsers: dict[str, Client], card: str) -> None:
    browser = browsers["anonymous"]
    browser.post(reverse("set_language"), {"language": "de", "next": "/"})
    page = browser.get(card).content.decode()
    assert '<html lang="de"' in page
    assert re.search(r'cx="\d+\.\d"', page)  # coordinates have points in every language


@pytest.mark.parametrize("who", WHO)
def test_it_keeps_to_the_policy(browsers: dict[str, Client], card: str, who: str) -> None:
    answer = browsers[who].get(card)
    assert not INLINE.search(answer.content.decode())
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


def test_boards_and_entries_lead_to_it(browsers: dict[str, Client], card: str, met: Submission) -> None:
    for url in (reverse("challenge_boards", args=["clinic"]), met.get_absolute_url()):
        assert f'href="{card}"' in browsers["ada"].get(url).content.decode()


def test_a_name_is_text(client: Client, card: str, met: Submission) -> None:
    Submission.objects.filter(pk=met.pk).update(name="<script>alert(1)</script>")
    assert "<script>alert(1)" not in client.get(card).content.decode()


def test_drafts_have_cards_for_organisers_only(browsers: dict[str, Client], card: str) -> None:
    Challenge.objects.update(status="draft")
    assert_statuses(browsers, card, (404, 404, 404, 404, 200))
