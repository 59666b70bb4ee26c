"""The results of a phase as files that other programs read: matrix, releases, boards, intervals, entries, constants.

Exact numbers, as organisers see them, and nothing of the private data. What each column means is in `results_readme`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd
from django.db.models import QuerySet
from django.utils import timezone

from challenges.metrics.bootstrap import RESAMPLES
from challenges.models import Challenge, Phase
from challenges.scenarios import registry
from challenges.scenarios.base import CONTRACT
from submissions import boards, evidence, results_readme
from submissions.models import Control, Duel, Release, Standing, Submission

_WHOLE: Final = ("unit", "rank", "band")
_QUANTITIES: Final = ("utility", "worst_leak", "privacy", "mean_leak", "score")


class CannotExport(ValueError):
    """The results cannot be written there, or there are none; the message says why."""


def dump(*, challenge: Challenge, phase: Phase, folder: Path) -> None:
    """Writes all files into `folder`, which is made. Raises CannotExport if it exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotExport(f"“{folder}” exists and is not an empty folder: nothing is overwritten.")
    metrics = registry.get(challenge.scenario).metrics(challenge.game)
    tables = {
        "matrix": pd.DataFrame(matrix(phase, metrics), columns=results_readme.matrix_columns(metrics)),
        "releases": pd.DataFrame(releases(phase), columns=list(results_readme.RELEASES)),
        "boards": pd.DataFrame(standings(challenge, phase), columns=list(results_readme.BOARDS)),
        "intervals": pd.DataFrame(intervals(phase), columns=list(results_readme.INTERVALS)),
        "controls": pd.DataFrame(blind_controls(phase), columns=list(results_readme.CONTROLS)),
        "entries": pd.DataFrame(entries(phase), columns=list(results_readme.ENTRIES)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        whole = table.columns.intersection(list(_WHOLE))
        table[whole] = table[whole].astype("Int64")  # whole numbers that may be missing
        table.to_csv(folder / f"{name}.csv", index=False)
        table.to_parquet(folder / f"{name}.parquet", index=False)
    facts = constants(challenge, phase)
    (folder / "constants.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(results_readme.text(challenge, phase, metrics), encoding="utf-8")


def matrix(phase: Phase, metrics: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """A row for each duel and unit; for a duel without a result one row without a unit."""
    duels = Duel.objects.filter(release__phase=phase, attack__in=_inside(phase), release__submission__in=_inside(phase))
    ordered = duels.order_by(
        "release__submission__created_at", "release__submission", "release__seed", "attack__created_at", "attack"
    )
    for duel in ordered.select_related("attack", "release__submission"):
        about = {
            "defense": str(duel.release.submission_id),
            "attack": str(duel.attack_id),
            "defense_name": duel.release.submission.name,
            "attack_name": duel.attack.name,
            "seed": duel.release.seed,
            "state": duel.state,
            "failure": duel.reason,
            "suspected": duel.suspected,
            "voided": bool(duel.void_reason),
            "void_reason": duel.void_reason,
        }
        if duel.state != Duel.State.DONE:
            yield about
            continue
        for unit, (leaks, errors) in enumerate(zip(duel.leaks, duel.errors, strict=True)):
            found = {f"leak_{name}": leak for name, leak in zip(metrics, leaks, strict=True)}
            spread = {f"error_{name}": error for name, error in zip(metrics, errors, strict=True)}
            yield {**about, "unit": unit, **found, **spread, "detail": json.dumps(duel.detail)}


def releases(phase: Phase) -> Iterator[dict[str, Any]]:
    """A row for each release of a defense that takes part."""
    found = Release.objects.filter(phase=phase, submission__in=_inside(phase))
    for release in found.order_by("submission__created_at", "submission", "seed").select_related("submission"):
        yield {
            "defense": str(release.submission_id),
            "defense_name": release.submission.name,
            "seed": release.seed,
            "raw_utility": release.utility,
            "sha256": release.sha256,
            "facts": json.dumps(release.facts),
        }


def standings(challenge: Challenge, phase: Phase) -> Iterator[dict[str, Any]]:
    """Both boards, best first, as organisers see them."""
    rows = {standing.submission_id: standing for standing in Standing.objects.filter(phase=phase)}
    for kind in Submission.Kind.values:
        for row in boards.board(challenge=challenge, kind=kind, organiser=True, phase=phase):
            standing = rows[row.submission.pk]
            yield {
                "kind": kind,
                "rank": row.rank,
                "band": standing.band,
                "entry": str(row.submission.pk),
                "name": row.name,
                "team": row.team,
                "role": row.role,
                "qualified": standing.qualified if kind == Submission.Kind.DEFENSE else None,
                **{name: getattr(standing, name) for name in _QUANTITIES},
                "worst_leak_error": standing.worst_leak_error,
                "worst_attack": str(standing.worst_attack_id or ""),
                **{f"public_{name}": getattr(standing, f"public_{name}") for name in _QUANTITIES},
            }


def intervals(phase: Phase) -> Iterator[dict[str, Any]]:
    """A row for each published quantity that has a 95 % interval."""
    for standing in Standing.objects.filter(phase=phase, submission__in=_inside(phase)).order_by("submission"):
        for name in _QUANTITIES:
            if bounds := standing.intervals.get(name):
                value = getattr(standing, name)
                low, high = bounds
                yield {
                    "entry": str(standing.submission_id), "quantity": name, "value": value, "low": low, "high": high
                }  # fmt: skip


def blind_controls(phase: Phase) -> Iterator[dict[str, Any]]:
    """A row for each attack and seed: what it knew of people whom the release was not made from."""
    found = Control.objects.of_phase(phase).filter(attack__in=_inside(phase))
    ordered = found.order_by("attack__created_at", "attack", "twin__seed")
    for control in ordered.select_related("attack", "twin__defense"):
        yield {
            "attack": str(control.attack_id),
            "attack_name": control.attack.name,
            "anchor_name": control.twin.defense.name,
            "seed": control.twin.seed,
            "state": control.state,
            "failure": control.reason,
            "leak": control.leak,
            "error": control.error,
            "detail": json.dumps(control.detail) if control.detail else "",
        }


def entries(phase: Phase) -> Iterator[dict[str, Any]]:
    """A row for each entry that takes part. Notes and people stay here: they are for the team and the organisers."""
    for entry in _inside(phase).select_related("team", "image").order_by("created_at", "pk"):
        yield {
            "entry": str(entry.pk),
            "kind": entry.kind,
            "role": entry.role,
            "name": entry.name,
            "team": entry.team.name if entry.team else "",
            "state": entry.state,
            "entered_at": entry.created_at.isoformat(),
            "image": entry.image.image_id if entry.image else "",
            "declared_epsilon": entry.declared_epsilon,
            "declared_delta": entry.declared_delta,
        }


def constants(challenge: Challenge, phase: Phase) -> dict[str, Any]:
    """What the numbers depend on beside the duels, and which software made them."""
    dataset = challenge.dataset
    return {
        "challenge": challenge.slug,
        "title": challenge.title,
        "scenario": challenge.scenario,
        "scenario_options": challenge.options,
        "phase": phase.kind,
        "seeds": phase.seeds,
        "folds": phase.folds,
        "frozen_at": phase.frozen_at.isoformat() if phase.frozen_at else None,
        "revealed_at": phase.revealed_at.isoformat() if phase.revealed_at else None,
        "metric": challenge.metric,
        "ranking": challenge.ranking,
        "white_box": challenge.white_box,
        "reference_leak": challenge.reference_leak,
        "utility_threshold": challenge.utility_threshold,
        "revealed": challenge.revealed,
        "trivial_utility": challenge.trivial_utility,
        "reference_utility": challenge.reference_utility,
        "leaks": list(registry.get(challenge.scenario).metrics(challenge.game)),
        "resamples": RESAMPLES,
        "confidence": 0.95,
        "public_sample": {"rows": dataset.sample_rows, "sha256": dataset.sample_sha256},
        "contract": CONTRACT,
        "software": evidence.software(),
        "exported_at": timezone.now().isoformat(),
    }


def _inside(phase: Phase) -> QuerySet[Submission]:
    return Submission.objects.taking_part(phase)
