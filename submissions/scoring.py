"""The board that a step is played on: which table, which secret deal, which tokens. And what its result is worth."""

import hashlib
import json
import shutil
import tempfile
from base64 import b64decode
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from challenges import splits
from challenges.metrics import bootstrap
from challenges.models import SAMPLE_SECRET, Challenge, Phase
from challenges.scenarios import registry
from challenges.scenarios.base import Board
from challenges.splits import Deal
from sandbox import isolation
from sandbox.reasons import Reason, Rejected, gettext_noop
from submissions import reading
from submissions.models import Release, Step
from submissions.steps import scenario_of

_TOO_MUCH: Final = {
    "time": gettext_noop("Measuring what the release is worth took more than %(seconds)d seconds: make it simpler."),
    "memory": gettext_noop("Measuring what the release is worth needs more than %(memory_mb)d MB: make it simpler."),
}


def board_of(step: Step) -> Board:
    """Everything that the scenario needs for this step. The same call gives the same tokens and shuffles again."""
    challenge = step.submission.challenge
    phase = step.phase
    run_key = splits.derive(SAMPLE_SECRET if phase is None else bytes(phase.secret), "run", str(step.run_id))
    return Board(
        game=challenge.game,
        table=challenge.dataset.sample_path if phase is None else challenge.dataset.table_path,
        deal=challenge.sample_deal() if phase is None else private_deal(step),
        key=run_key,
        seed=step.seed,
        release=_release_folder(step),
        previous=step.previous.run.result_folder if step.previous else None,
        resample=resample_key(phase),
    )


def resample_key(phase: Phase | None) -> bytes:
    """The key of the bootstrap: one for all of a phase, so that its releases and its duels can be compared."""
    return splits.derive(SAMPLE_SECRET if phase is None else bytes(phase.secret), "resample")


def private_deal(step: Step) -> Deal:
    """The secret deal of a release's step or of a duel against it: fresh for every defense (SCORING 1)."""
    assert step.phase is not None
    return deal_of(step.phase, step.duel.release.submission_id if step.duel else step.submission_id, step.seed)


def deal_of(phase: Phase, defense: UUID, seed: int) -> Deal:
    """The secret deal that a defense is trained by in a phase under one of its seeds; a final has one for all."""
    scope = "final" if phase.kind == Phase.Kind.FINAL else str(defense)
    return _private_deal(phase, scope, seed, phase.challenge.dataset.sha256)


@lru_cache(maxsize=128)
def _private_deal(phase: Phase, scope: str, seed: int, _data: str) -> Deal:
    return phase.deal(scope=scope, seed=seed)


def judge(step: Step, result: Path) -> dict[str, Any]:
    """What canonical files are worth, as columns of a Release or of a Duel. Empty for steps in between.

    What an attack left is as long as its list of people, and so is the work. A released table may be made so that
    models take for ever to learn from it: its worth is measured in a child with a limit. Raises `Rejected` there.
    """
    scenario, board = scenario_of(step.submission), board_of(step)
    if step.name == scenario.attack_step:
        leaks = scenario.leaks(board, result)
        return {
            "leaks": leaks.values.tolist(),
            "errors": leaks.errors.tolist(),
            "replicates": bootstrap.pack(leaks.replicates),
            "mean_leak": float(leaks.values.mean()),
            "detail": leaks.detail,
        }
    if step.name == scenario.defense_steps[-1]:
        found = _worth(scenario.slug, board, result)
        return {**found, "replicates": b64decode(found["replicates"]), "sha256": _folder_sha256(result)}
    return {}


def _worth(scenario: str, board: Board, result: Path) -> dict[str, Any]:
    """`reading.worth` within the limits of settings.JUDGE, which honest tables keep far from.

    Beyond them it is the release that is at fault; that the measuring breaks down otherwise is a fault of the platform.
    """
    limits = settings.JUDGE
    try:
        found: dict[str, Any] = isolation.ask(reading.worth, scenario, board, result, **limits)
    except isolation.Broken as broken:
        if broken.kind not in _TOO_MUCH:
            raise isolation.IsolationFault(f"measuring a release: {broken.kind}") from broken
        raise Rejected(Reason.OUTPUT_INVALID, _TOO_MUCH[broken.kind] % limits) from None
    return found


def keep_release(release: Release, result: Path) -> None:
    """Puts the canonical files of a run where duels find them. Doing it again changes nothing."""
    shutil.copytree(result, release.folder, dirs_exist_ok=True)


def _release_folder(step: Step) -> Path | None:
    if step.duel is not None:
        return step.duel.release.folder
    if step.name == scenario_of(step.submission).attack_step:
        return _reference_release(step.submission.challenge)
    return None


def _reference_release(challenge: Challenge) -> Path:
    """The platform's own release on the public sample, which attacks rehearse against; made once per dataset."""
    dataset = challenge.dataset
    made_from = [dataset.sample.name, challenge.scenario, challenge.white_box, challenge.options]
    stamp = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(settings.PRIVATE_ROOT) / "reference" / challenge.slug / stamp
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=folder.parent))
        board = Board(
            game=challenge.game, table=dataset.sample_path, deal=challenge.sample_deal(), key=SAMPLE_SECRET, seed=0
        )
        registry.get(challenge.scenario).reference_release(board, making)
        try:
            making.rename(folder)
        except OSError:  # another worker was faster, and made the same
            shutil.rmtree(making)
    return folder


def _folder_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()
