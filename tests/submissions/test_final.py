"""A final from its picks to its reveal: who is in, what is run, what nobody may know before, and what is then shown."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from anomed_site.models import User
from challenges import actions as challenges
from challenges import finals as organisers
from challenges import splits
from challenges.metrics import bootstrap
from challenges.models import Challenge, Phase
from challenges.permissions import ORGANISERS
from sandbox.models import Image, Run
from sandbox.reasons import Reason
from submissions import actions, boards, finals, flow, reckoning, retention, scoring, tasks, timeline
from submissions.models import Duel, Release, Standing, Step, Submission, Team
from submissions.states import State

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]
SEEDS = 3


def duel_verdict(a: float, b: float, units: int) -> dict[str, Any]:
    return {
        "leaks": [[a, b]] * units,
        "errors": [[0.02, 0.03]] * units,
        "replicates": bootstrap.pack(np.full((bootstrap.RESAMPLES, units, 2), [a, b])),
        "mean_leak": (a + b) / 2,
        "detail": {"auc": (a + 1) / 2, "tpr": b, "alpha": 0.1, "advantage": a, "members": 100, "nonmembers": 100},
    }


class Workers:
    """Ends queued private runs as workers do. What comes of them is looked up by the names of the entries."""

    def __init__(self) -> None:
        self.utilities: dict[str, float] = {}
        self.leaks: dict[tuple[str, str], float] = {}  # by attack and defense
        self.failures: dict[tuple[str, int], Reason] = {}  # by entry and seed

    def end_all(self, **which: Any) -> int:
        """Until nothing is queued any more; returns how many runs it were."""
        ended = 0
        while step := Step.objects.filter(phase__isnull=False, run__state="queued", **which).order_by("pk").first():
            self.end(step)
            ended += 1
        reckon()
        return ended

    def end(self, step: Step) -> None:
        run, name = step.run, step.submission.name
        flow.run_began(step)
        reason = self.failures.get((name, step.seed))
        run.state = Run.State.FAILED if reason else Run.State.SUCCEEDED
        run.reason, run.started_at, run.finished_at = reason or "", timezone.now(), timezone.now()
        run.seconds = 12.0
        run.save()
        flow.run_ended(step, run, None if reason else self._verdict(step))

    def _verdict(self, step: Step) -> dict[str, Any]:
        name = step.submission.name
        if step.duel is not None:
            leak = self.leaks.get((name, step.duel.release.submission.name), 0.0)
            return duel_verdict(leak, leak, step.duel.release.phase.folds)
        if step.name == "fit":
            return {}
        step.run.result_folder.mkdir(parents=True, exist_ok=True)
        (step.run.result_folder / "answers.npy").write_bytes(b"canonical")
        utility = self.utilities.get(name, 0.8)
        replicates = bootstrap.pack(np.full(bootstrap.RESAMPLES, utility))
        return {"utility": utility, "replicates": replicates, "facts": {}, "sha256": "0" * 64}


def reckon() -> None:
    """Works out ranks, as is done beside the duels."""
    for phase in Phase.objects.all():
        reckoning.reckon(phase.pk)


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture(autouse=True)
def own_folder(settings: Any, tmp_path: Any) -> None:
    settings.PRIVATE_ROOT = tmp_path / "private"
    settings.PRIVATE_ROOT.mkdir()


@pytest.fixture
def final(clinic: Challenge) -> Phase:
    Challenge.objects.update(daily_quota=50)
    return Phase.objects.create(challenge=clinic, kind="final", seeds=SEEDS, folds=1)


@pytest.fixture
def freeze(clinic: Challenge, final: Phase, olga: User) -> Callable[[], Phase]:
    def act() -> Phase:
        challenges.freeze(challenge=clinic, by=olga)
        final.refresh_from_db()
        return final

    return act


@pytest.fixture
def reveal(clinic: Challenge, final: Phase, olga: User) -> Callable[[], Challenge]:
    def act(reason: str = "") -> Challenge:
        challenges.reveal(challenge=clinic, by=olga, reason=reason)
        final.refresh_from_db()
        reckon()
        return Challenge.objects.get(pk=clinic.pk)

    return act


def names(rows: Any) -> list[str]:
    return sorted(rows.values_list("name", flat=True))


def ranks(challenge: Challenge, kind: str, phase: Phase | None = None) -> dict[str, int | None]:
    return {row.name: row.rank for row in boards.board(challenge=challenge, kind=kind, phase=phase)}


# Picking ------------------------------------------------------------------------------------------------------------


def test_a_team_picks_up_to_its_limit_and_takes_picks_back(ready: Ready, final: Phase, ada: User) -> None:
    entries = [ready("ada", "attack", name=f"attack-{number}") for number in range(3)]
    for entry in entries[:2]:  # also one that rests by now
        actions.pick(submission=entry, picked=True, by=ada)
    with pytest.raises(actions.Refused, match="picked 2 entries of this kind"):
        actions.pick(submission=entries[2], picked=True, by=ada)
    actions.pick(submission=ready("ada", "defense"), picked=True, by=ada)  # of the other kind there is room
    actions.pick(submission=entries[0], picked=False, by=ada)
    actions.pick(submission=entries[2], picked=True, by=ada)
    assert names(Submission.objects.filter(picked=True)) == ["attack-1", "attack-2", "defense"]


def test_what_cannot_be_picked(ready: Ready, clinic: Challenge, final: Phase, ada: User, olga: User) -> None:
    uploading = actions.enter(challenge=clinic, by=ada, kind="attack", file_name="a.tar", size=10)
    with pytest.raises(actions.Refused, match="passed their rehearsal"):
        actions.pick(submission=uploading, picked=True, by=ada)
    with pytest.raises(actions.Refused, match="as long as they are active"):
        actions.pick(submission=ready("", "attack", role="baseline"), picked=True, by=olga)
    entry = ready("ada", "attack")
    clinic.phases.filter(kind="development").update(closes_at=timezone.now())
    with pytest.raises(actions.Refused, match="frozen"):  # closed, even before anything has noticed
        actions.pick(submission=entry, picked=True, by=ada)
    final.delete()
    with pytest.raises(actions.Refused, match="no final"):
        actions.pick(submission=entry, picked=True, by=ada)


def test_a_silent_team_goes_in_with_its_best_and_a_team_that_spoke_with_its_word(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, ada: User, ben: User
) -> None:
    workers.utilities = {"poor": 0.72, "good": 0.88, "fair": 0.8}
    ready("ben", "attack", name="thief")
    for name in ("poor", "good"):
        ready("ada", "defense", name=name)
    workers.end_all()
    Challenge.objects.update(active_limit=1)
    resting = ready("ben", "defense", name="fair")
    workers.end_all()
    actions.choose(submission=resting, active=False, by=ben)
    actions.pick(submission=resting, picked=True, by=ben)
    ready("ben", "defense", name="newer")
    freeze()
    assert names(Submission.objects.filter(picked=True)) == ["fair", "good", "thief"]


def test_the_calendar_freezes_when_development_is_over(ready: Ready, clinic: Challenge, final: Phase) -> None:
    ready("ada", "defense")
    tasks.go_on_to_finals()
    final.refresh_from_db()
    assert not final.is_frozen
    clinic.phases.filter(kind="development").update(closes_at=timezone.now())
    tasks.go_on_to_finals()
    final.refresh_from_db()
    assert final.is_frozen
    assert Step.objects.filter(phase=final).count() == SEEDS
    tasks.go_on_to_finals()
    assert Step.objects.filter(phase=final).count() == SEEDS  # not twice
    assert final.history.first().history_user is None


def test_a_final_with_a_date_freezes_at_once_and_begins_then(ready: Ready, clinic: Challenge, final: Phase) -> None:
    ready("ada", "defense")
    now = timezone.now()
    Phase.objects.filter(pk=final.pk).update(opens_at=now + timedelta(days=1))
    clinic.phases.filter(kind="development").update(closes_at=now)
    tasks.go_on_to_finals()
    assert Submission.objects.get().picked
    assert not Step.objects.filter(phase=final).exists()
    Phase.objects.filter(pk=final.pk).update(opens_at=now)
    tasks.go_on_to_finals()
    assert Step.objects.filter(phase=final).count() == SEEDS


# The runs -----------------------------------------------------------------------------------------------------------


def test_every_pick_runs_once_per_seed_and_meets_every_attack_of_others(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, ada: User, ben: User
) -> None:
    own, thief = ready("ada", "attack", name="own"), ready("ben", "attack", name="thief")
    ready("ben", "attack", name="idle")
    baseline = ready("", "attack", role="baseline", name="baseline")
    anchor = ready("", "defense", role="trivial", name="anchor")
    vault = ready("ada", "defense", name="vault")
    workers.end_all()
    for entry, by in ((own, ada), (vault, ada), (thief, ben)):
        actions.pick(submission=entry, picked=True, by=by)
    before = Duel.objects.count()

    final = freeze()
    assert {run.private for run in Run.objects.filter(pk__in=Step.objects.filter(phase=final).values("run"))} == {True}
    workers.end_all()

    made = Release.objects.filter(phase=final).values_list("submission", "seed")
    assert sorted(made) == sorted((entry.pk, seed) for entry in (vault, anchor) for seed in range(SEEDS))
    duels = Duel.objects.filter(release__phase=final)
    met = set(duels.values_list("attack__name", "release__submission__name"))
    assert met == {
        ("thief", "vault"), ("baseline", "vault"), ("own", "anchor"), ("thief", "anchor"), ("baseline", "anchor"),
    }  # fmt: skip
    assert duels.count() == SEEDS * len(met)
    assert Duel.objects.count() == before + duels.count()
    assert {baseline.pk, thief.pk} <= set(duels.values_list("attack", flat=True))


def test_a_seed_has_the_same_secret_members_for_all_defenses(ready: Ready, workers: Workers, freeze: Any) -> None:
    ready("ada", "defense"), ready("ben", "defense"), ready("ben", "attack")
    final = freeze()
    deals = {
        (step.submission.team_id, step.seed): scoring.private_deal(step)
        for step in Step.objects.filter(phase=final, name="fit")
    }
    teams = {team for team, _seed in deals}
    for seed in range(SEEDS):
        first, second = (deals[team, seed] for team in teams)
        for part in ("aux", "core", "candidates", "test", "member", "known", "fold"):
            assert (getattr(first, part) == getattr(second, part)).all(), part
    for one, other in combinations(range(SEEDS), 2):
        assert (deals[min(teams), one].member != deals[min(teams), other].member).any()

    workers.end_all(name="fit"), workers.end_all(name="predict")
    step = Step.objects.filter(phase=final, name="attack", seed=1)[0]
    assert (scoring.private_deal(step).member == deals[min(teams), 1].member).all()
    keys = {scoring.board_of(one).resample for one in Step.objects.filter(phase=final, seed=1)}
    assert len(keys) == 1  # what is compared is compared over the same resamples


def test_the_secrets_of_development_tell_nothing_about_the_final(ready: Ready, freeze: Any, clinic: Challenge) -> None:
    """Recomputes all that development's secret gives, under every name that the final goes by, and compares."""
    entries = [ready("ada", "defense", name="one"), ready("ben", "defense", name="two"), ready("ben", "attack")]
    final = freeze()
    development = clinic.development
    assert development is not None
    assert len(final.secret) == 32
    assert bytes(final.secret) != bytes(development.secret)
    rows = clinic.dataset.rows
    truths = [final.deal(scope="final", seed=seed) for seed in range(SEEDS)]
    scopes = ["final", "check", *(str(entry.pk) for entry in entries)]
    guesses = [
        _deal(clinic, bytes(development.secret), phase=kind, scope=scope, seed=seed)
        for kind in ("development", "final")
        for scope in scopes
        for seed in range(SEEDS)
    ]
    z_scores = [
        abs(_agreement(_marks(truth, field, rows), _marks(guess, field, rows)))
        for truth in truths
        for guess in guesses
        for field in ("member", "known", "candidates", "aux", "core", "test")
    ]
    assert len(z_scores) == 3 * 30 * 6
    # The largest of 540 normal numbers is beyond 5 once in 3,000 runs; a deal that followed would be beyond 20.
    assert max(z_scores) < 5
    same = _marks(truths[0], "member", rows)
    assert abs(_agreement(same, same)) > 15  # the measure sees what is there

    tokens = [set(splits.tokens(splits.derive(key, "candidates"), 500)) for key in _keys(final, development)]
    assert not any(one & other for one, other in combinations(tokens, 2))


def _deal(challenge: Challenge, secret: bytes, *, phase: str, scope: str, seed: int) -> splits.Deal:
    from challenges import tables

    return splits.deal(
        tables.read(challenge.dataset.table_path), challenge.dataset.schema, secret=secret, challenge=challenge.slug,
        phase=phase, scope=scope, seed=seed, sizes=challenge.sizes, revealed=challenge.revealed, folds=1,
    )  # fmt: skip


def _marks(deal: splits.Deal, field: str, rows: int) -> np.ndarray:
    """Which rows of the table a deal marks as members, as known, or as a part; NaN where it says nothing."""
    values = getattr(deal, field)
    if values.dtype != np.bool_:
        return np.isin(np.arange(rows), values).astype(float)
    marks = np.full(rows, np.nan)
    marks[deal.candidates] = values
    return marks


def _agreement(truth: np.ndarray, guess: np.ndarray) -> float:
    """The correlation of two marks over the rows that both speak of, in standard errors."""
    both = ~np.isnan(truth) & ~np.isnan(guess)
    return float(np.corrcoef(truth[both], guess[both])[0, 1] * np.sqrt(both.sum()))


def _keys(final: Phase, development: Phase) -> Iterator[bytes]:
    """The keys of the final's runs, and what development's secret would make of them."""
    for step in Step.objects.filter(phase=final):
        yield scoring.board_of(step).key
        yield splits.derive(bytes(development.secret), "run", str(step.run_id))


# Nothing is told ----------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(teams: dict[str, Team], ada: User, ben: User, carl: User) -> dict[str, Client]:
    """A browser of each participant, of somebody who only has an account, and of nobody."""
    clients = {"nobody": Client()}
    for user in (ada, ben, carl):
        clients[user.email.split("@")[0]] = Client()
        clients[user.email.split("@")[0]].force_login(user)
    return clients


def seen_by(clients: dict[str, Client]) -> dict[tuple[str, str], tuple[int, str, str]]:
    """All that each of them is shown: pages, live fragments with their tags, and the API."""
    entries = [str(pk) for pk in Submission.objects.order_by("pk").values_list("pk", flat=True)]
    pages = ["/", "/challenges/", *(f"/challenges/clinic/{name}" for name in ("", "data/", "rules/", "submit/"))]
    live = [f"/challenges/clinic/{name}/" for name in ("boards", "matrix", "submissions")]
    live += [f"/challenges/clinic/{name}/?phase=final" for name in ("boards", "matrix")]
    live += [f"/submissions/{pk}/" for pk in entries]
    pages += [f"/submissions/{pk}/log/" for pk in entries]
    pages += [f"/submissions/{pk}/log/?run={run}" for pk in entries[:1] for run in _final_runs()]
    api = ["challenges", "challenges/clinic", "challenges/clinic/submissions"]
    api += [f"challenges/clinic/{name}{query}" for name in ("boards", "matrix") for query in ("", "?phase=final")]
    api += [f"submissions/{pk}{tail}" for pk in entries for tail in ("", "/log")]
    seen = {}
    for who, client in clients.items():
        for path in [*pages, *(f"/api/v1/{name}" for name in api)]:
            seen[who, path] = _answer(client.get(path))
        for path in live:  # the part of the page that browsers ask for again, with its tag
            seen[who, path] = _answer(client.get(path, headers={"HX-Request": "true"}))
    return seen


def _final_runs() -> list[str]:
    steps = Step.objects.filter(phase__kind="final", seed=0).order_by("pk")
    return [str(run) for run in steps.values_list("run", flat=True)[:1]]


def _answer(response: Any) -> tuple[int, str, str]:
    text = re.sub(r'(csrfmiddlewaretoken" value=|X-CSRFToken.?.?: .?")"?[\w-]+"', r"\1", response.content.decode())
    return response.status_code, response.headers.get("ETag", ""), text


def test_nothing_of_a_final_is_told_before_it_is_revealed(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, crowd: dict[str, Client], image: Image
) -> None:
    ready("", "attack", role="baseline", name="baseline")
    ready("ada", "defense", name="vault"), ready("ada", "defense", name="glass")
    ready("ben", "attack", name="thief"), ready("ben", "attack", name="clumsy")
    workers.leaks = {("thief", "vault"): 0.05, ("baseline", "vault"): 0.02}
    workers.end_all()
    final = freeze()
    late = late_entry(clinic, "ada", image)
    before, version = seen_by(crowd), Challenge.objects.get(pk=clinic.pk).version
    assert before["ada", "/challenges/clinic/submissions/"][0] == 200
    assert "late" in before["ada", f"/submissions/{late.pk}/"][2]

    workers.leaks = {("thief", "vault"): 0.5}
    workers.failures = {("glass", 1): Reason.TIMEOUT, ("vault", 2): Reason.PLATFORM_FAULT}
    workers.failures |= {("clumsy", seed): Reason.CRASHED for seed in range(SEEDS)} | {("late", 0): Reason.CRASHED}
    step = Step.objects.filter(phase=final, run__state="queued")[0]
    flow.run_began(step)
    Run.objects.filter(pk=step.run_id).update(state="running", started_at=timezone.now())
    ada_alone = {"ada": crowd["ada"]}
    _assert_same(seen_by(ada_alone), {key: value for key, value in before.items() if key[0] == "ada"})
    Run.objects.filter(pk=step.run_id).update(state="queued")
    assert workers.end_all() > 20
    assert finals.failures(final) != {}
    tasks.settle_forgotten(), tasks.go_on_to_finals()

    _assert_same(seen_by(crowd), before)
    assert Challenge.objects.get(pk=clinic.pk).version == version  # browsers were not told to look again
    assert not Standing.objects.filter(phase=final).exists()

    reveal("The vault could not be run again.")
    after = seen_by(ada_alone)
    assert after["ada", "/challenges/clinic/boards/"] != before["ada", "/challenges/clinic/boards/"]
    own_page = f"/submissions/{Submission.objects.get(name='glass').pk}/"
    assert "still running when its time was up" in after["ada", own_page][2]
    assert before["ben", own_page][0] == 404


def _assert_same(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Names the first page that differs: a whole dictionary would be unreadable."""
    assert now.keys() == before.keys()
    for key, answer in now.items():
        assert answer == before[key], key


def late_entry(clinic: Challenge, who: str, image: Image, kind: str = "defense", name: str = "late") -> Submission:
    """Something that is entered now and has passed its rehearsal."""
    by = User.objects.get(email=f"{who}@uni.test")
    entry = actions.enter(challenge=clinic, by=by, kind=kind, file_name=f"{name}.tar", size=10)
    flow.uploaded(entry)
    flow.image_accepted(entry, image)
    while entry.state == State.REHEARSING:
        step = entry.steps.order_by("-pk")[0]
        flow.run_ended(step, step.run, {})
        entry.refresh_from_db()
    return entry


# What becomes of entries --------------------------------------------------------------------------------------------


def test_an_entry_stays_scored_while_its_final_runs_and_when_it_fails_there(
    ready: Ready, workers: Workers, freeze: Any, reveal: Any
) -> None:
    vault, thief = ready("ada", "defense", name="vault"), ready("ben", "attack", name="thief")
    workers.end_all()
    freeze()
    workers.failures = {("vault", 0): Reason.OUT_OF_MEMORY}
    workers.end_all()
    vault.refresh_from_db(), thief.refresh_from_db()
    assert (vault.state, vault.failure_reason, vault.active, thief.state) == (State.SCORED, "", True, State.SCORED)

    challenge = reveal()
    row = boards.board(challenge=challenge, kind="defense")[0]
    assert (row.name, row.failed, row.rank, row.score) == ("vault", True, None, None)
    moment = timeline.of(Submission.objects.get(pk=vault.pk), exact=False).moments[-1]
    assert (moment.key, moment.state, moment.failed) == ("final", "failed", Reason.OUT_OF_MEMORY)
    assert ranks(challenge, "defense", challenge.development) == {"vault": 1}


def test_whoever_withdraws_after_the_freezing_is_out_and_holds_nobody_up(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, ada: User
) -> None:
    gone, stays = ready("ada", "defense", name="gone"), ready("ben", "defense", name="stays")
    ready("", "attack", role="baseline", name="baseline")
    workers.end_all()
    freeze()
    actions.withdraw(submission=gone, by=ada)
    assert not Step.objects.filter(submission=gone, run__state="queued").exists()
    workers.end_all()
    challenge = reveal()
    assert list(ranks(challenge, "defense")) == ["stays"]
    assert stays.releases.filter(phase=challenge.final).count() == SEEDS


def test_nobody_changes_results_by_withdrawing_once_they_are_settled(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, ben: User, olga: User
) -> None:
    ready("ada", "defense", name="vault")
    thief, spare = ready("ben", "attack", name="thief"), ready("ben", "attack", name="spare")
    workers.leaks = {("thief", "vault"): 0.15}
    workers.end_all()
    actions.pick(submission=thief, picked=True, by=ben)
    freeze(), workers.end_all(), reveal()
    with pytest.raises(actions.Refused, match="revealed already"):
        actions.withdraw(submission=Submission.objects.get(pk=thief.pk), by=ben)
    assert Standing.objects.get(phase__kind="final", submission__name="vault").worst_attack == thief
    challenges.close(challenge=clinic, by=olga)
    with pytest.raises(actions.Refused, match="closed"):
        actions.withdraw(submission=Submission.objects.get(pk=spare.pk), by=ben)
    actions.disqualify(submission=thief, by=olga)  # whoever is answerable for the results may
    assert Standing.objects.get(phase__kind="final", submission__name="vault").worst_attack != thief


def test_nothing_of_development_can_be_chosen_once_the_picks_are_frozen(
    ready: Ready, freeze: Any, ben: User, workers: Workers
) -> None:
    entry = ready("ben", "attack")
    freeze()
    with pytest.raises(actions.Refused, match="settled"):
        actions.choose(submission=entry, active=False, by=ben)
    with pytest.raises(actions.Refused, match="frozen"):
        actions.pick(submission=entry, picked=False, by=ben)


# The reveal ---------------------------------------------------------------------------------------------------------


def test_the_reveal_shows_new_ranks_beside_old_ones_and_keeps_the_boards_of_development(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, client: Client
) -> None:
    ready("ada", "defense", name="lucky"), ready("ben", "defense", name="solid")
    ready("", "attack", role="baseline", name="baseline")
    workers.utilities = {"lucky": 0.86, "solid": 0.8}
    workers.leaks = {("baseline", "lucky"): 0.01, ("baseline", "solid"): 0.01}
    workers.end_all()
    assert ranks(clinic, "defense") == {"lucky": 1, "solid": 2}
    freeze()
    workers.leaks = {("baseline", "lucky"): 0.15, ("baseline", "solid"): 0.01}
    workers.end_all()

    challenge = reveal()
    rows = {row.name: row for row in boards.board(challenge=challenge, kind="defense")}
    before = {name: row.before and row.before.rank for name, row in rows.items()}
    assert before == {"solid": 2, "lucky": 1}
    assert (rows["solid"].rank, rows["solid"].move) == (1, "up")
    assert (rows["lucky"].rank, rows["lucky"].move) == (2, "down")
    assert rows["lucky"].worst_leak == pytest.approx(0.15)
    assert ranks(challenge, "defense", challenge.development) == {"lucky": 1, "solid": 2}

    page = client.get("/challenges/clinic/boards/").content.decode()
    assert "up from rank 2 in development" in page
    assert "down from rank 1 in development" in page
    earlier = client.get("/challenges/clinic/boards/?phase=development").content.decode()
    assert "in development</span>" not in earlier
    assert 'aria-current="page">Development' in earlier
    answers = [client.get(f"/api/v1/challenges/clinic/boards{query}").json() for query in ("", "?phase=development")]
    assert [answer["phase"] for answer in answers] == ["final", "development"]
    assert [answer["defenses"][0]["name"] for answer in answers] == ["solid", "lucky"]
    assert [answer["defenses"][0]["rank_before"] for answer in answers] == [2, None]


def test_a_final_is_revealed_only_when_its_runs_are_over(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, olga: User
) -> None:
    ready("ada", "defense", name="vault"), ready("ben", "attack", name="thief")
    workers.end_all()
    freeze()
    with pytest.raises(challenges.Refused, match="6 are to come"):  # a run and a duel for each seed
        challenges.reveal(challenge=clinic, by=olga)
    workers.end_all()
    assert reveal().shown_phase == clinic.final


def test_organisers_see_how_far_it_is_and_repeat_what_the_platform_spoilt(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, olga: User
) -> None:
    ready("ada", "defense", name="vault"), ready("ben", "attack", name="thief")
    workers.end_all()
    final = freeze()
    conductor = organisers.conductor()
    assert (conductor.progress(final).over, conductor.progress(final).due) == (0, 6)
    workers.failures = {("vault", 1): Reason.PLATFORM_FAULT, ("thief", 0): Reason.PLATFORM_FAULT}
    workers.failures |= {("thief", 2): Reason.TIMEOUT}
    workers.end_all()
    progress = conductor.progress(final)
    (row,) = progress.rows
    (duels,) = row.duels
    assert duels is not None
    assert (row.alone.states, duels.states) == (("done", "fault", "done"), ("fault", "never", "failed"))
    assert (progress.due, progress.over, progress.open, progress.faults) == (5, 3, 0, 2)
    said = [(one.entrant.name, one.against, one.seed, one.is_fault) for one in progress.troubles]
    assert said == [("vault", "", 2, True), ("thief", "vault", 1, True), ("thief", "vault", 3, False)]

    spoilt = scoring.private_deal(Step.objects.get(phase=final, seed=1, submission__name="vault", name="fit"))
    assert challenges.repeat_faults(challenge=clinic, by=olga) == 2
    again = Step.objects.get(phase=final, seed=1, submission__name="vault", name="fit")
    assert (scoring.private_deal(again).member == spoilt.member).all()  # the same membership
    workers.failures = {}
    workers.end_all()
    progress = conductor.progress(final)
    assert (progress.due, progress.over, progress.faults) == (6, 6, 0)
    with pytest.raises(challenges.Refused, match="No run"):
        challenges.repeat_faults(challenge=clinic, by=olga)
    row = boards.board(challenge=reveal(), kind="defense")[0]  # type: ignore[assignment]
    assert not row.failed  # type: ignore[attr-defined]
    with pytest.raises(challenges.Refused, match="no final under way"):
        challenges.repeat_faults(challenge=clinic, by=olga)


def spoilt(ready: Ready, workers: Workers, freeze: Any, failures: dict[tuple[str, int], Reason]) -> Phase:
    """A final whose runs are over, in which some failed: of Ada's vault and of two attacks by Ben."""
    ready("ada", "defense", name="vault"), ready("ben", "attack", name="thief"), ready("ben", "attack", name="picklock")
    workers.leaks = {("thief", "vault"): 0.15, ("picklock", "vault"): 0.05}
    workers.end_all()
    final: Phase = freeze()
    workers.failures = failures
    workers.end_all()
    return final


def test_no_final_is_revealed_while_the_platform_owes_it_a_run(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, olga: User
) -> None:
    final = spoilt(ready, workers, freeze, {("thief", 0): Reason.PLATFORM_FAULT})
    assert organisers.reveal_obstacle(clinic) == ""
    assert "spoilt 1 run, for which no entry may pay" in organisers.spoilt(clinic)
    with pytest.raises(challenges.Refused, match="Repeat it first"):
        challenges.reveal(challenge=clinic, by=olga)
    final.refresh_from_db()
    assert final.is_sealed
    workers.failures = {}
    Duel.objects.filter(state="failed").update(finished_at=timezone.now() - timedelta(minutes=11))
    tasks.fight_again()  # as the sweep does
    workers.end_all()
    reveal()
    row = Standing.objects.get(phase=final, submission__name="vault")
    assert row.worst_leak == pytest.approx(0.15)
    assert final.reveal_note == ""


def test_organisers_may_reveal_without_what_cannot_be_repeated_and_say_why(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, olga: User, carl: User, client: Client
) -> None:
    failures = {("thief", 0): Reason.PLATFORM_FAULT, ("thief", 2): Reason.PLATFORM_FAULT}
    final = spoilt(ready, workers, freeze, failures)
    with pytest.raises(challenges.Refused, match="300 characters"):
        challenges.reveal(challenge=clinic, by=olga, reason="x" * 301)
    olga.groups.add(Group.objects.get(name=ORGANISERS))
    client.force_login(olga)
    address = f"/admin/challenges/challenge/{clinic.pk}/reveal/"
    asked = client.get(address).content.decode()
    assert "spoilt 2 runs" in asked
    assert 'name="reason"' in asked
    assert "spoilt by the platform" in client.get("/challenges/clinic/oversight/").content.decode()
    client.post(address, {"reason": "  "})
    final.refresh_from_db()
    assert final.is_sealed
    client.post(address, {"reason": "The GPU host burnt  down."})
    final.refresh_from_db()
    assert not final.is_sealed
    reckon()
    assert final.reveal_note == "The GPU host burnt down."
    void = Duel.objects.filter(release__phase=final, void_reason=final.reveal_note)
    assert list(void.values_list("attack__name", flat=True)) == ["thief"] * SEEDS
    row = Standing.objects.get(phase=final, submission__name="vault")
    assert row.worst_leak == pytest.approx(0.05)
    tasks.fight_again()
    assert not Duel.objects.pending().exists()  # what is void is not tried again
    client.force_login(carl)
    board, matrix = (client.get(f"/challenges/clinic/{page}/").content.decode() for page in ("boards", "matrix"))
    assert "The organisers say: The GPU host burnt down." in board
    assert "The GPU host burnt down." in matrix


def test_a_duel_that_the_platform_spoilt_can_be_voided_alone(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, olga: User
) -> None:
    final = spoilt(ready, workers, freeze, {("thief", 1): Reason.PLATFORM_FAULT})
    actions.void_duel(duel=Duel.objects.get(reason="platform_fault"), reason="Lost power.", by=olga)
    progress = organisers.conductor().progress(final)
    states = {
        attack.name: cell and cell.states for attack, cell in zip(progress.attacks, progress.rows[0].duels, strict=True)
    }
    assert states == {"thief": ("void",) * 3, "picklock": ("done",) * 3}
    assert (progress.over, progress.due, progress.faults) == (9, 9, 0)
    reveal()


def test_a_pairing_is_void_under_seeds_that_are_run_later_too(
    ready: Ready, workers: Workers, freeze: Any, reveal: Any, olga: User
) -> None:
    ready("ada", "defense", name="vault"), ready("ben", "attack", name="thief"), ready("ben", "attack", name="other")
    workers.leaks = {("thief", "vault"): 0.6, ("other", "vault"): 0.05}
    workers.end_all()
    final = freeze()
    workers.end_all(seed=0)
    workers.failures = {("thief", 2): Reason.PLATFORM_FAULT}  # of a void duel, which nobody owes
    actions.void_duel(duel=Duel.objects.get(release__phase=final, attack__name="thief"), reason="Told.", by=olga)
    workers.end_all()
    reveal()
    void = Duel.objects.filter(release__phase=final, void_reason="Told.", voided_by=olga)
    assert sorted(void.values_list("attack__name", "release__seed")) == [("thief", seed) for seed in range(SEEDS)]
    assert Standing.objects.get(phase=final, submission__name="thief").score is None
    assert Standing.objects.get(phase=final, submission__name="vault").worst_leak == pytest.approx(0.05)


def test_a_final_may_be_revealed_without_a_defense_that_the_platform_could_not_run(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, olga: User
) -> None:
    spoilt(ready, workers, freeze, {("vault", 1): Reason.PLATFORM_FAULT})
    with pytest.raises(challenges.Refused, match="spoilt 1 run"):
        challenges.reveal(challenge=clinic, by=olga)
    challenges.reveal(challenge=clinic, by=olga, reason="Its host is gone.")
    reckon()
    (row,) = boards.board(challenge=Challenge.objects.get(), kind="defense")
    assert (row.failed, row.score) == (True, None)


def test_an_attack_that_fails_under_one_seed_is_judged_by_the_others(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any
) -> None:
    """Else a defense would only have to make the strongest attack fail once."""
    final = spoilt(ready, workers, freeze, {("thief", 1): Reason.TIMEOUT})
    reveal()
    vault, thief = (Standing.objects.get(phase=final, submission__name=name) for name in ("vault", "thief"))
    assert vault.worst_leak == pytest.approx((0.15 + 0.05 + 0.15) / 3)  # where it failed, the next best counts
    assert vault.worst_attack is not None
    assert vault.worst_attack.name == "thief"
    low, high = vault.intervals["worst_leak"]
    assert low <= vault.worst_leak <= high
    assert thief.mean_leak == pytest.approx((0.15 + 0 + 0.15) / 3)  # a failed duel is a leak of 0


# Late entries -------------------------------------------------------------------------------------------------------


def test_late_entries_run_are_not_ranked_and_change_nobodys_score(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, image: Image, ada: User
) -> None:
    vault, thief = ready("ada", "defense", name="vault"), ready("ben", "attack", name="thief")
    older = ready("ada", "defense", name="older")
    workers.end_all()
    actions.pick(submission=vault, picked=True, by=ada)
    final = freeze()
    with pytest.raises(actions.Refused, match="in the final already"):
        actions.run_late(submission=vault, by=ada)
    actions.run_late(submission=older, by=ada)
    late = late_entry(clinic, "ada", image)
    robber = late_entry(clinic, "ben", image, kind="attack", name="robber")
    workers.leaks = {("thief", "vault"): 0.05, ("robber", "vault"): 0.9, ("thief", "late"): 0.02}
    workers.end_all()
    late.refresh_from_db(), robber.refresh_from_db()
    assert (late.state, late.active, late.late, robber.state) == (State.QUEUED, False, True, State.QUEUED)

    challenge = reveal()
    rows = {row.name: row for kind in ("defense", "attack") for row in boards.board(challenge=challenge, kind=kind)}
    assert {name: row.rank for name, row in rows.items()} == {
        "vault": 1, "late": None, "older": None, "thief": 1, "robber": None,
    }  # fmt: skip
    assert rows["vault"].worst_leak == pytest.approx(0.05)  # the late attack does not count against it
    assert rows["late"].score is not None
    assert Duel.objects.filter(attack=robber, release__phase=final, state="done").exists()
    late.refresh_from_db(), robber.refresh_from_db(), older.refresh_from_db()
    assert {late.state, robber.state, older.state} == {State.SCORED}
    assert set(ranks(challenge, "defense", challenge.development)) == {"vault", "older"}
    assert thief.team_id == robber.team_id


def test_a_late_entry_that_fails_says_so_after_the_reveal(
    ready: Ready, workers: Workers, clinic: Challenge, freeze: Any, reveal: Any, image: Image
) -> None:
    ready("ada", "defense", name="vault")
    workers.end_all()
    freeze()
    late = late_entry(clinic, "ada", image)
    workers.failures = {("late", seed): Reason.CRASHED for seed in range(SEEDS)}
    workers.end_all()
    late.refresh_from_db()
    assert late.state == State.QUEUED
    reveal()
    late.refresh_from_db()
    assert (late.state, late.failure_reason) == (State.FAILED, Reason.CRASHED)
    later = late_entry(clinic, "ada", image, name="later")  # everybody may know at once now
    workers.end_all()
    later.refresh_from_db()
    assert later.state == State.SCORED


# What is kept -------------------------------------------------------------------------------------------------------


def test_what_a_repeated_step_would_read_is_kept_until_the_reveal(
    ready: Ready, workers: Workers, freeze: Any, reveal: Any
) -> None:
    ready("ada", "defense", name="vault")
    workers.end_all()
    final = freeze()
    workers.end_all(name="fit")
    steps = Step.objects.filter(phase=final, name="fit")
    runs = set(steps.values_list("run", flat=True))
    Run.objects.exclude(state="succeeded").update(state="failed", reason=Reason.PLATFORM_FAULT)
    assert retention.StepKeeper().results(runs) == runs
    finals.repeat_faults(final)
    workers.end_all()
    assert retention.StepKeeper().results(runs) == runs
    reveal()
    Challenge.objects.update(status=Challenge.Status.CLOSED)  # while it is open, attacks may ask the models live
    assert retention.StepKeeper().results(runs) == set()
