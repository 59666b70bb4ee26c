"""A final from the pick to the reveal, by people at browsers: real site, workers, containers."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.arena import ORGANISER, PASSWORD, Arena, patients, wait_for, write_challenge

pytestmark = [pytest.mark.xdist_group("arena"), pytest.mark.browser, pytest.mark.timeout(600)]

ADA, BEN = "ada@uni.example.org", "ben@uni.example.org"
PHASES = '[[phases]]\nkind = "development"\n\n[[phases]]\nkind = "final"\nseeds = 3\n'
# Private runs of the final: fit and predict of two defenses, two duels of the baseline, one of Ben's attack.
RUNS = 3 * (2 * 2 + 2 + 1)


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """A published challenge `clinic` with a final of three seeds; two teams with entries, and a baseline."""
    running = Arena(var=tmp_path_factory.mktemp("arena"))
    running.start()
    try:
        folder = write_challenge(running.var / "clinic", patients(600), phases=PHASES)
        running.manage("challenge_import", str(folder), "--organiser", ORGANISER, "--publish")
        archive = running.var / "base.tar"
        subprocess.run(["docker", "save", "--output", str(archive), "anomed/base"], check=True)
        running.manage("base_image_add", str(archive), "anomed/base")
        archive.unlink()
        for email, team in ((ADA, "Team Ada"), (BEN, "Team Ben")):
            running.sign_up(email).close()
            running.anomed(email, "join", "clinic", "--team", team, "--accept-rules")
        running.anomed(ORGANISER, "submit", "clinic", "--attack", "anomed/random", "--as", "baseline")
        running.anomed(BEN, "submit", "clinic", "--attack", "anomed/calibrated-loss")
        running.anomed(BEN, "submit", "clinic", "--defense", "anomed/majority")
        running.anomed(ADA, "submit", "clinic", "--defense", "anomed/logistic-regression", "--wait")
        open_runs = "select count(*) from sandbox_run where state in ('queued', 'running')"
        wait_for(lambda: running.query(open_runs)[0][0] == 0, seconds=90, what="development has come to rest")
        yield running
    finally:
        running.stop()
        if leftover := running.containers():
            pytest.fail(f"Containers were left over: {leftover}")


def sign_in(browser: Browser, arena: Arena, email: str, problems: list[str]) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en").new_page()
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(f"{arena.url}/accounts/login/")
    page.fill("input[name=login]", email)
    page.fill("input[name=password]", PASSWORD)
    page.click("main button[type=submit]")
    page.wait_for_url(lambda url: "/login" not in url)
    return page


def test_a_final_is_picked_for_frozen_run_with_three_seeds_and_revealed(arena: Arena, browser: Browser) -> None:
    problems: list[str] = []
    ada, olga = (sign_in(browser, arena, email, problems) for email in (ADA, ORGANISER))

    ada.goto(f"{arena.url}/challenges/clinic/submissions/")
    assert "nothing picked: your best on the board goes in" in ada.inner_text("main")
    ada.get_by_role("button", name="Pick logistic-regression").click()
    ada.get_by_text("is picked for the final").wait_for()
    assert "1 of 2 picked" in ada.inner_text("main")

    (challenge,) = arena.query("select id from challenges_challenge where slug = 'clinic'")[0]
    final = f"{arena.url}/admin/challenges/challenge/{challenge}/final/"
    olga.goto(final)
    olga.get_by_role("link", name="Freeze the picks now").click()
    olga.get_by_role("button", name="Freeze").click()
    olga.get_by_text("The picks are frozen.").wait_for()
    ada.goto(f"{arena.url}/challenges/clinic/boards/")
    assert "The final is under way" in ada.inner_text("main")
    wait_for(
        lambda: not arena.query("select 1 from submissions_reckoning where changes != reckoned"),
        seconds=60,
        what="the ranks of the development phase have followed its last duel",
    )
    before = told(arena)

    final_runs = (
        "select r.state from sandbox_run r join submissions_step s on s.run_id = r.id "
        "join challenges_phase p on p.id = s.phase_id where p.kind = 'final'"
    )
    wait_for(
        lambda: [state for (state,) in arena.query(final_runs)] == ["succeeded"] * RUNS,
        seconds=180,
        what="every run of the final is over",
    )
    assert told(arena) == before  # all of it went unseen
    olga.goto(final)
    due = 3 * (2 + 2 + 1)  # two defenses alone, the baseline against both, Ben's attack against Ada's
    assert f"{due} of {due} runs are over." in olga.inner_text("#content")
    olga.get_by_role("link", name="Reveal the results").click()
    olga.get_by_role("button", name="Reveal").click()
    olga.get_by_text("The results are revealed.").wait_for()

    phases = ada.get_by_role("navigation", name="Phase")
    phases.get_by_role("link", name="Final").wait_for(timeout=30_000)  # no reload: the boards are live
    assert "Each entry ran once on each of 3 fresh secret draws" in ada.inner_text("main")
    row = ada.get_by_role("row").filter(has_text="logistic-regression")
    assert "the same rank as in development" in row.inner_text()
    phases.get_by_role("link", name="Development").click()
    ada.wait_for_url("**/?phase=development")
    assert "fresh secret draws" not in ada.inner_text("main")

    boards = [arena.api(ADA, f"challenges/clinic/boards{query}") for query in ("", "?phase=development")]
    assert [one["phase"] for one in boards] == ["final", "development"]
    mine = [next(row for row in one["defenses"] if row["team"] == "Team Ada") for one in boards]
    assert (mine[0]["rank"], mine[0]["rank_before"], mine[0]["failed"]) == (1, 1, False)
    assert mine[0]["utility"] > 0.5
    assert (mine[0]["duels"], mine[1]["duels"]) == (6, 2)
    assert problems == []


def told(arena: Arena) -> Any:
    """What both teams get from the API."""
    paths = ["challenges/clinic/boards", "challenges/clinic/matrix", "challenges/clinic/submissions"]
    return [arena.api(email, path) for email in (ADA, BEN) for path in paths]
