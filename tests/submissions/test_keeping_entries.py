"""What of entries goes when its time is over; what may still be played never does."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from anomed_site.models import User
from challenges.models import Challenge
from sandbox import retention as sandbox_retention
from sandbox.models import Image, Run
from submissions import actions, boards, flow, retention, standings, tasks
from submissions.models import Duel, Release, Standing, Step, Submission, Team, Upload

pytestmark = pytest.mark.django_db

Ready = Callable[..., Submission]


@pytest.fixture(autouse=True)
def own_folder(settings: Any, tmp_path: Path) -> None:
    """A private folder with nothing of other tests; made before the challenge, whose tables lie in it."""
    settings.PRIVATE_ROOT = tmp_path / "private"
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "private" / "incoming")
    settings.KEEP_RELEASES_DAYS = 30
    settings.PRIVATE_ROOT.mkdir()


def ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


def write(path: Path, size: int, *, days: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (ago(days).timestamp(),) * 2)
    return path


@pytest.fixture
def release(clinic: Challenge) -> Callable[[Submission], Release]:
    """A release of a defense, with 100 bytes of files; the entry counts as scored."""

    def make(defense: Submission) -> Release:
        phase = clinic.phases.get()
        made = Release.objects.create(submission=defense, phase=phase, seed=0, sha256="0" * 64, utility=0.8)
        write(made.folder / "answers.npy", 100)
        end_runs(defense)
        Submission.objects.filter(pk=defense.pk).update(state="scored", ended_at=timezone.now())
        return made

    return make


def end_runs(entry: Submission) -> None:
    Run.objects.filter(pk__in=entry.steps.values("run")).update(state="succeeded", finished_at=timezone.now())


def sweep() -> dict[str, tuple[int, int]]:
    return {tally.what: (tally.number, tally.size) for tally in retention.sweep() if tally.number}


def close(challenge: Challenge, days: float) -> None:
    Challenge.objects.filter(pk=challenge.pk).update(status="closed", closed_at=ago(days))


class TestReleases:
    @pytest.mark.parametrize("state", ["withdrawn", "failed", "disqualified"])
    def test_of_an_entry_that_is_out(self, state: str, ready: Ready, release: Callable[..., Release]) -> None:
        made = release(ready("ada", "defense"))
        Submission.objects.update(state=state, ended_at=ago(29))
        assert sweep() == {}
        Submission.objects.update(ended_at=ago(31))
        assert sweep() == {"entries' releases": (1, 100)}
        assert not made.folder.parent.exists()
        assert Release.objects.get() == made

    def test_of_an_entry_that_may_still_be_played(self, ready: Ready, release: Callable[..., Release]) -> None:
        made = release(ready("ada", "defense"))
        Submission.objects.update(active=False, ended_at=ago(4000), created_at=ago(4000))
        assert sweep() == {}
        assert made.folder.exists()

    def test_time_counts_from_when_it_was_taken_out(
        self, ready: Ready, release: Callable[..., Release], ada: User
    ) -> None:
        made = release(ready("ada", "defense"))
        Submission.objects.update(ended_at=ago(4000))
        actions.withdraw(submission=Submission.objects.get(), by=ada)
        assert sweep() == {}
        assert made.folder.exists()

    def test_of_a_closed_challenge_its_boards_stay(
        self, clinic: Challenge, ready: Ready, release: Callable[..., Release]
    ) -> None:
        defense, attack = ready("ada", "defense"), ready("ben", "attack")
        made = release(defense)
        duel = Duel.objects.create(
            attack=attack, release=made, state="done", leaks=[[0.1, 0.1]] * 2, errors=[[0, 0]] * 2
        )
        standings.refresh_all(clinic)
        before = list(Standing.objects.order_by("pk").values())
        board = boards.board(challenge=clinic, kind="defense")
        close(clinic, days=29)
        assert sweep() == {}
        close(clinic, days=31)
        assert sweep() == {"entries' releases": (1, 100)}
        assert not made.folder.exists()
        assert list(Standing.objects.order_by("pk").values()) == before
        assert boards.board(challenge=Challenge.objects.get(), kind="defense") == board
        assert Duel.objects.get() == duel

    def test_of_an_entry_that_still_owes_a_duel(
        self, clinic: Challenge, ready: Ready, release: Callable[..., Release]
    ) -> None:
        made = release(ready("ada", "defense"))
        attack = ready("ben", "attack")
        duel = Duel.objects.get(attack=attack, release=made)
        close(clinic, days=400)
        assert sweep() == {}
        Duel.objects.filter(pk=duel.pk).update(state="failed")  # decided in the books, its container still runs
        assert sweep() == {}
        Run.objects.filter(pk=duel.step.run_id).update(state="failed", finished_at=timezone.now())
        assert sweep() == {"entries' releases": (1, 100)}

    def test_zero_days_are_for_ever(self, settings: Any, ready: Ready, release: Callable[..., Release]) -> None:
        settings.KEEP_RELEASES_DAYS = 0
        release(ready("ada", "defense"))
        Submission.objects.update(state="withdrawn", ended_at=ago(4000))
        assert sweep() == {}

    def test_of_entries_that_were_deleted(self, settings: Any) -> None:
        folder = Path(settings.PRIVATE_ROOT) / "releases" / ("0" * 32)
        write(folder / "1-0" / "answers.npy", 100)
        assert sweep() == {}  # its row may not be committed yet
        os.utime(folder, (ago(2).timestamp(),) * 2)
        assert sweep() == {"entries' releases": (1, 100)}

    def test_references_of_challenges_that_are_over(self, clinic: Challenge, settings: Any) -> None:
        root = Path(settings.PRIVATE_ROOT) / "reference"
        for slug in ("clinic", "deleted"):
            write(root / slug / "stamp" / "answers.npy", 100)
            os.utime(root / slug, (ago(2).timestamp(),) * 2)
        assert sweep() == {"reference releases": (1, 100)}
        close(clinic, days=1)
        assert sweep() == {"reference releases": (1, 100)}


class TestUploads:
    def test_forgotten_ones(self, clinic: Challenge, teams: dict[str, Team], ada: User, settings: Any) -> None:
        entry = actions.enter(challenge=clinic, by=ada, kind="attack", file_name="a.tar", size=200)
        write(entry.upload.path, 50)
        assert sweep() == {}
        Upload.objects.update(updated_at=ago(8))
        settings.KEEP_UPLOADS_DAYS = 0
        tasks.sweep()
        assert sweep() == {}
        settings.KEEP_UPLOADS_DAYS = 7
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retention.uploads, "discard_forgotten", lambda: pytest.fail("a dry run removes nothing"))
            found = {tally.what: (tally.number, tally.size) for tally in retention.sweep(dry_run=True)}
        assert found["forgotten uploads"] == (1, 50)
        assert sweep()["forgotten uploads"] == (1, 50)
        entry.refresh_from_db()
        assert entry.state == "withdrawn"

    def test_files_that_nobody_knows(self, settings: Any) -> None:
        root = Path(settings.PRIVATE_ROOT)
        old = [write(root / "uploads" / ("0" * 32), 10, days=2), write(root / "incoming" / "body", 20, days=2)]
        young = [write(root / "uploads" / ("1" * 32), 10), write(root / "incoming" / "other", 20)]
        assert sweep() == {"stray files of uploads": (2, 30)}
        assert not any(path.exists() for path in old)
        assert all(path.exists() for path in young)


class TestKeeper:
    """What the sandbox asks before it removes results and images."""

    def test_results_until_the_release_is_made(self, ready: Ready) -> None:
        defense = ready("ada", "defense")
        fit = defense.steps.get(name="fit", phase__isnull=False)
        end_runs(defense)
        keeper = retention.StepKeeper()
        runs = list(Run.objects.values_list("pk", flat=True))
        assert fit.run_id in keeper.results(runs)
        Submission.objects.update(state="withdrawn")
        assert keeper.results(runs) == set()

    def test_results_that_a_waiting_step_reads(self, ready: Ready) -> None:
        defense = ready("ada", "defense")
        fit = defense.steps.get(name="fit", phase__isnull=False)
        end_runs(defense)
        flow.run_ended(fit, fit.run, {})
        Submission.objects.update(state="withdrawn")
        assert Step.objects.get(previous=fit).run.state == "queued"
        assert retention.StepKeeper().results([fit.run_id]) == {fit.run_id}

    def test_models_that_attacks_may_ask_live(self, ready: Ready, release: Callable[..., Release]) -> None:
        defense = ready("ada", "defense")
        fit = defense.steps.get(name="fit", phase__isnull=False)
        end_runs(defense)
        flow.run_ended(fit, fit.run, {})
        release(defense)
        kept = retention.StepKeeper().results
        assert kept([fit.run_id]) == {fit.run_id}
        Challenge.objects.update(scenario="synthetic-membership")  # where nothing can be asked
        assert kept([fit.run_id]) == set()
        Challenge.objects.update(scenario="model-membership", status="closed")
        assert kept([fit.run_id]) == set()
        Challenge.objects.update(status="published")
        Submission.objects.update(active=False)
        assert kept([fit.run_id]) == set()

    def test_images_while_anybody_may_still_run_them(self, ready: Ready, image: Image, clinic: Challenge) -> None:
        keeper = retention.StepKeeper()
        first, second = ready("ada", "attack"), ready("ben", "attack")
        for entry in (first, second):
            end_runs(entry)
        Submission.objects.filter(pk=first.pk).update(state="withdrawn", ended_at=ago(400))
        assert keeper.images([image.pk], ago(30)) == {image.pk}
        close(clinic, days=31)
        assert keeper.images([image.pk], ago(30)) == set()
        assert keeper.images([image.pk], ago(32)) == {image.pk}

    def test_it_is_the_one_that_is_asked(self) -> None:
        assert [type(keeper) for keeper in sandbox_retention._keepers] == [retention.StepKeeper]


def test_the_command_tells_before_it_removes(ready: Ready, release: Callable[..., Release]) -> None:
    made = release(ready("ada", "defense"))
    Submission.objects.update(state="withdrawn", ended_at=ago(31))
    told = StringIO()
    call_command("housekeeping", "--dry-run", stdout=told)
    assert "entries' releases" in told.getvalue()
    assert made.folder.exists()
    call_command("housekeeping", stdout=told)
    assert not made.folder.exists()
