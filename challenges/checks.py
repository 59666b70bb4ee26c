"""The check before publishing: would this challenge measure what it claims to, and say nothing that it must not?"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from django.utils import timezone

from challenges import calendar, overlap, subsample, tables, walls
from challenges.anchors import Anchors
from challenges.findings import Finding
from challenges.locks import LIMITS, RANKING
from challenges.metrics.rankings import MEMBERSHIP_ONLY
from challenges.metrics.utility import HIGHER_IS_BETTER, METRICS_OF
from challenges.models import SAMPLE_FOLDS, Challenge, Dataset, Phase
from challenges.scenarios import registry
from challenges.scenarios.base import MEASURES
from challenges.scenarios.trials import DRAWS, Trial
from challenges.schema import Schema, TableError
from challenges.splits import Deal
from challenges.uploads import LEAST_SAMPLE_ROWS

# The scope of a deal that no submission has: nothing about real deals follows from it.
_SCOPE: Final = "check"
# u1 - u0 as a share of what lies between u0 and a perfect release.
_NO_ROOM, _LITTLE_ROOM = 0.05, 0.15
_HOUR: Final = 3600
_LONGEST_STEP: Final = 7 * 24 * _HOUR
_LIBRARIES_MB: Final = 512


@dataclass
class Outcome:
    """What the check found, and the anchors if they could be computed."""

    findings: list[Finding]
    anchors: Anchors | None = None


def run(challenge: Challenge) -> Outcome:
    """Looks at everything; takes about a minute for 5,000 records. Writes nothing."""
    findings = [*look_at_calendar(challenge), *_limits(challenge), *_texts(challenge)]
    dataset = Dataset.objects.filter(challenge=challenge).first()
    if dataset is None:
        return Outcome([Finding("error", "data-missing"), *findings])
    if not dataset.schema.target:
        return Outcome([Finding("error", "target-missing"), *findings])
    schema, table = dataset.schema, tables.read(dataset.table_path)
    about = [*_data(dataset, schema), *_sample(challenge, dataset, schema, table), *_ranking(challenge)]
    about += _names(challenge)
    if any(finding.code == "metric" for finding in _metric(challenge, schema)):
        return Outcome([*about, *_metric(challenge, schema), *findings])
    found, computed = _deals(challenge, schema, table)
    return Outcome([*about, *found, *findings], computed)


def fingerprint(challenge: Challenge) -> str:
    """A hash of the data and of every setting that scores depend on: a report counts only while it stays the same."""
    dataset = Dataset.objects.filter(challenge=challenge).first()
    settings: dict[str, Any] = {
        name: getattr(challenge, name)
        for name in (
            *("slug", "scenario", "options", "metric", "white_box", "reference_leak", "utility_threshold", "revealed"),
            *("aux_size", "core_size", "candidate_size"),
            *RANKING,
            *LIMITS,
        )
    }
    settings["data"] = dataset and [dataset.sha256, dataset.sample_sha256, dataset.schema_json]
    settings["phases"] = [
        [phase.kind, phase.seeds, phase.folds, hashlib.sha256(bytes(phase.secret)).hexdigest()]
        for phase in challenge.phases.order_by("kind")
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


# Calendar, resources, texts ------------------------------------------------------------------------------------------


def look_at_calendar(challenge: Challenge) -> list[Finding]:
    """Whether the phases make sense today, and how the final begins if there is one."""
    if found := calendar.look(challenge.phases.all(), timezone.now()):
        return found
    final, development = challenge.final, challenge.development
    if final is None:
        return [Finding("ok", "phases")]
    by_hand = development is None or development.closes_at is None
    how = Finding("info", "final-by-hand") if by_hand else Finding("ok", "final-by-date", {"seeds": final.seeds})
    return [Finding("ok", "phases"), how]


def _limits(challenge: Challenge) -> list[Finding]:
    found = []
    hours = round(challenge.seconds / _HOUR, 1)
    if challenge.seconds > _LONGEST_STEP:
        found.append(Finding("error", "limits-beyond", {"hours": _LONGEST_STEP // _HOUR}))
    elif challenge.seconds > _HOUR:
        found.append(Finding("warning", "limits-long", {"hours": hours, "total": round(100 * hours)}))
    if challenge.memory_mb < _LIBRARIES_MB:
        found.append(Finding("warning", "limits-memory", {"memory_mb": challenge.memory_mb, "least": _LIBRARIES_MB}))
    if not 0 < challenge.reference_leak <= 1 or not 0 <= challenge.revealed < 1:
        found.append(Finding("error", "constants"))
    return [*(found or [Finding("ok", "limits", challenge.limits)]), *_walls(challenge)]


def _walls(challenge: Challenge) -> list[Finding]:
    """Nothing if the challenge demands no walls, or all is well."""
    if not challenge.walls or walls.are_offered(challenge.walls) is not False:
        return []
    return [Finding("warning", "walls-absent", {"walls": ", ".join(challenge.walls)})]


def _texts(challenge: Challenge) -> list[Finding]:
    found = []
    if not challenge.overview.strip():
        found.append(Finding("warning", "overview-missing"))
    if not challenge.rules.strip():
        found.append(Finding("warning", "rules-missing"))
    english = ("title", "summary", "overview", "data_text", "rules")
    if any(getattr(challenge, name).strip() and not getattr(challenge, f"{name}_de").strip() for name in english):
        found.append(Finding("info", "german-missing"))
    return found or [Finding("ok", "texts")]


# The tables -----------------------------------------------------------------------------------------------------------


def _data(dataset: Dataset, schema: Schema) -> list[Finding]:
    facts = {"rows": dataset.rows, "columns": len(schema.columns), "target": schema.target}
    removed = dataset.profile.get("duplicates", 0)
    repeated = Finding("info", "duplicates", {"number": removed}) if removed else Finding("ok", "no-duplicates")
    found = [Finding("ok", "data", facts), repeated]
    return found if schema.patient_id else [*found, Finding("info", "patient-column-missing")]


def _ranking(challenge: Challenge) -> list[Finding]:
    """Nothing, unless the order of the defenses needs measures that the scenario does not have."""
    measured = registry.get(challenge.scenario).metrics(challenge.game)
    if challenge.ranking not in MEMBERSHIP_ONLY or "tpr" in measured:
        return []
    return [Finding("error", "ranking", {"ranking": str(challenge.get_ranking_display())})]


def _names(challenge: Challenge) -> list[Finding]:
    """Nothing, unless a secret by which a leak is named is called like a measure that boards and cards know."""
    scenario = registry.get(challenge.scenario)
    secrets = [name for name in scenario.metrics(challenge.game) if name not in scenario.readings]
    taken = [name for name in secrets if name.strip().casefold() in MEASURES]
    return [Finding("error", "secret-name", {"column": name}) for name in taken]


def _metric(challenge: Challenge, schema: Schema) -> list[Finding]:
    if challenge.metric in registry.get(challenge.scenario).utility_metrics(schema):
        return []
    needs = "number" if challenge.metric in METRICS_OF["regression"] else "classes"
    return [Finding("error", "metric", {"metric": challenge.metric.replace("_", " "), "needs": needs})]


def _sample(challenge: Challenge, dataset: Dataset, schema: Schema, table: pd.DataFrame) -> list[Finding]:
    if not dataset.sample:
        return [Finding("error", "sample-missing")]
    columns = Schema(schema.shared, schema.target)
    sample = tables.read(dataset.sample_path)
    if problem := _misfit(sample, columns):
        return [Finding("error", "sample-schema", {"problem": problem})]
    found = []
    if shared := overlap.shared_rows(sample, table, columns):
        found.append(Finding("error", "sample-real", {"number": shared}))
    if len(sample) < LEAST_SAMPLE_ROWS:
        found.append(Finding("error", "sample-small", {"rows": len(sample), "least": LEAST_SAMPLE_ROWS}))
    found += _rehearsal(challenge, sample)
    return found or [Finding("ok", "sample", {"rows": len(sample)})]


def _rehearsal(challenge: Challenge, sample: pd.DataFrame) -> list[Finding]:
    """Why entries could not be rehearsed on the sample, dealt just as for a rehearsal."""
    try:
        deals = (challenge.sample_deal(),)
    except TableError as error:
        return [Finding("error", "sample-parts", {"problem": str(error)})]
    trial = Trial("rehearsal", 1, SAMPLE_FOLDS, challenge.game, sample, deals, np.arange(len(sample)))
    return registry.get(challenge.scenario).look_at_sample(trial)


def _misfit(sample: pd.DataFrame, schema: Schema) -> str:
    """What in a canonical sample does not agree with the schema: columns, types, categories, ranges."""
    if list(sample.columns) != [column.name for column in schema.columns]:
        return ", ".join(set(sample.columns) ^ {column.name for column in schema.columns}) or "…"
    for column in schema.columns:
        present = sample[column.name].dropna()
        if column.type == "category":
            fits = bool(present.isin(column.categories).all())
        else:
            numbers = present.to_numpy(dtype=np.float64)
            low, high = column.minimum, column.maximum
            fits = (low is None or bool((numbers >= low).all())) and (high is None or bool((numbers <= high).all()))
        if not fits or (len(present) < len(sample) and not column.missing):
            return f"“{column.name}”."
    return ""


# The deals ------------------------------------------------------------------------------------------------------------


def _deals(challenge: Challenge, schema: Schema, table: pd.DataFrame) -> tuple[list[Finding], Anchors | None]:
    """Deals the table as each phase will, and looks at the result."""
    try:
        subsample.check(len(table), schema)
    except TableError as error:
        return [Finding("error", "too-wide", {"problem": str(error)})], None
    rows = subsample.choose(len(table), schema)
    found: list[Finding] = []
    if len(rows) < len(table):
        found.append(Finding("info", "subsample", {"number": len(rows), "rows": len(table)}))
    scenario = registry.get(challenge.scenario)
    computed: Anchors | None = None
    for phase in challenge.phases.all():
        try:
            deals = tuple(phase.deal(scope=_SCOPE, seed=seed) for seed in range(DRAWS))
        except TableError as error:
            found.append(Finding("error", "parts", {"phase": phase.kind, "problem": str(error)}))
            continue
        trial = Trial(phase.kind, phase.seeds, phase.folds, challenge.game, table, deals, rows)
        looked = scenario.look(trial)
        found += [_apart(phase, schema, table, trial.deal), *looked]
        if computed is None and not any(finding.level == "error" for finding in looked):
            fitted = table.iloc[rows].reset_index(drop=True)
            anchor_findings, computed = _anchors(challenge, fitted, subsample.restricted(trial.deal, rows))
            found += anchor_findings
    return found, computed


def _apart(phase: Phase, schema: Schema, table: pd.DataFrame, deal: Deal) -> Finding:
    """No record (by its values) and no patient is in two parts."""
    part = np.full(len(table), -1)
    named = {"aux": deal.aux, "core": deal.core, "candidates": deal.candidates, "test": deal.test}
    for number, rows in enumerate(named.values()):
        part[rows] = number
    keys: list[Any] = [overlap.fingerprints(table, schema)]
    if schema.patient_id is not None:
        keys.append(table[schema.patient_id])
    straying = sum(int((pd.Series(part).groupby(np.asarray(key)).nunique() > 1).sum()) for key in keys)
    straying += len(np.concatenate(list(named.values()))) - len(table)
    if straying:
        return Finding("error", "not-disjoint", {"number": straying, "phase": phase.kind})
    code = "disjoint" if schema.patient_id else "disjoint-records"
    return Finding("ok", code, {name: len(rows) for name, rows in named.items()})


def _anchors(challenge: Challenge, table: pd.DataFrame, deal: Deal) -> tuple[list[Finding], Anchors | None]:
    game = challenge.game
    try:
        computed = registry.get(challenge.scenario).anchors(table, game.schema, deal, game)
    except TableError as error:
        return [Finding("error", "anchors-failed", {"problem": str(error)})], None
    facts = {"u0": computed.u0, "u1": computed.u1}
    room = _room(computed, challenge.metric)
    if room < _NO_ROOM:
        return [Finding("error", "anchors-equal", facts)], computed
    little = room < _LITTLE_ROOM
    return [Finding("warning", "anchors-close", facts) if little else Finding("ok", "anchors", facts)], computed


def _room(computed: Anchors, metric: str) -> float:
    """u1 - u0 as a share of the way from u0 to a perfect release (1, or 0 where lower is better)."""
    perfect = 1.0 if HIGHER_IS_BETTER[metric] else 0.0
    whole = perfect - computed.u0
    return (computed.u1 - computed.u0) / whole if whole else 0.0
