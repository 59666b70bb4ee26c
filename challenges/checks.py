"""The check before publishing: would this challenge measure what it claims to, and say nothing that it must not?"""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from django.utils import timezone

from challenges import anchors, blind, calendar, overlap, subsample, tables, walls
from challenges.anchors import Anchors
from challenges.blind import ENOUGH_SCORED, GOOD_SCORED
from challenges.findings import Finding
from challenges.locks import LIMITS
from challenges.metrics.utility import HIGHER_IS_BETTER, METRICS_OF
from challenges.models import SAMPLE_FOLDS, Challenge, Dataset, Phase
from challenges.schema import Schema, TableError
from challenges.splits import Deal, Positions
from challenges.uploads import LEAST_SAMPLE_ROWS

# The scope of a deal that no submission has: nothing about real deals follows from it.
_SCOPE: Final = "check"
# Standard errors: chance exceeds the first about once in 400 checks, the second about once in 16,000.
_ODD, _BROKEN = 3.0, 4.0
# The folds of a cross-validation share training records, so that their mean AUC varies more than their errors say:
# over 40 deals of the NHANES table it was 1.10 times as much.
_SPREAD: Final = 1.1
# Membership is drawn anew for each evaluation; what is wrong with the deal shows in every draw, bad luck in one.
_BLIND_DRAWS: Final = 3
# With fewer records of a class in the test part, the utility moves by several hundredths with a single patient.
_RARE: Final = 10
# Each entry is dealt anew: with this many coins, fewer than two of a side come up once in 17 million deals.
_FEWEST_IN_FOLD: Final = 30
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
    about = [*_data(dataset, schema), *_sample(challenge, dataset, schema, table)]
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
            *("slug", "scenario", "metric", "white_box", "reference_leak", "utility_threshold", "revealed"),
            *("aux_size", "core_size", "candidate_size"),
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
    """Whether the phases make sense today."""
    return calendar.look(challenge.phases.all(), timezone.now()) or [Finding("ok", "phases")]


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


def _metric(challenge: Challenge, schema: Schema) -> list[Finding]:
    if challenge.metric in METRICS_OF[schema.task]:
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
    found += _rehearsal(challenge, schema, sample)
    return found or [Finding("ok", "sample", {"rows": len(sample)})]


def _rehearsal(challenge: Challenge, schema: Schema, sample: pd.DataFrame) -> list[Finding]:
    """Why entries could not be rehearsed on the sample, dealt just as for a rehearsal."""
    try:
        deal = challenge.sample_deal()
    except TableError as error:
        return [Finding("error", "sample-parts", {"problem": str(error)})]
    found = [
        Finding("error", f"sample-{finding.code}", finding.facts)
        for finding in _classes(schema, sample, deal)
        if finding.level == "error"
    ]
    return found if _has_both_in_each_fold(deal, SAMPLE_FOLDS) else [*found, Finding("error", "sample-folds")]


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
        rows = subsample.choose(len(table), schema)
    except TableError as error:
        return [Finding("error", "too-wide", {"problem": str(error)})], None
    found: list[Finding] = []
    if len(rows) < len(table):
        found.append(Finding("info", "subsample", {"number": len(rows), "rows": len(table)}))
    fitted = table.iloc[rows].reset_index(drop=True)
    computed: Anchors | None = None
    for phase in challenge.phases.all():
        try:
            deal = phase.deal(scope=_SCOPE, seed=0)
        except TableError as error:
            found.append(Finding("error", "parts", {"phase": phase.kind, "problem": str(error)}))
            continue
        problems = [*_classes(schema, table, deal), *_folds(phase, deal)]
        found += [_size(phase, deal), _apart(phase, schema, table, deal), *problems]
        found.append(_blind(phase, schema, fitted, rows))
        if computed is None and not any(finding.level == "error" for finding in problems):
            anchor_findings, computed = _anchors(challenge, schema, fitted, subsample.restricted(deal, rows))
            found += anchor_findings
    return found, computed


def standard_error(scored: float) -> float:
    """The standard error of the leak A = 2 AUC - 1 at chance, when half of the scored candidates are members.

    From the variance of the Mann-Whitney statistic, (n1 + n0 + 1) / (12 n1 n0).
    """
    half = scored / 2
    return 2 * math.sqrt((scored + 1) / (12 * half * half))


def _size(phase: Phase, deal: Deal) -> Finding:
    scored, total = len(deal.scored), len(deal.scored) * phase.seeds
    error = standard_error(total)
    facts = {"phase": phase.kind, "scored": scored, "seeds": phase.seeds, "total": total, "error": error}
    if total >= ENOUGH_SCORED:
        return Finding("ok", "size", facts)
    more = {"least": ENOUGH_SCORED, "advised": GOOD_SCORED, "advised_error": standard_error(GOOD_SCORED)}
    return Finding("warning", "size-small", {**facts, **more, "twice": 2 * error})


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


def _classes(schema: Schema, table: pd.DataFrame, deal: Deal) -> list[Finding]:
    """Every class can be learnt, by defenses and by attacks, and measured."""
    target = table[schema.target]
    parts = {"training": target.iloc[deal.train], "auxiliary": target.iloc[deal.aux], "test": target.iloc[deal.test]}
    if not schema.labels:
        constant = [name for name, values in parts.items() if values.nunique() < 2]
        if constant:
            return [Finding("error", "target-constant", {"part": constant[0]})]
        return [Finding("ok", "target-varies")]
    counts = {name: values.value_counts().reindex(list(schema.labels), fill_value=0) for name, values in parts.items()}
    for name, count in counts.items():
        if count.min() == 0:
            return [Finding("error", "classes-absent", {"label": str(count.idxmin()), "part": name})]
    test = counts["test"]
    if test.min() < _RARE:
        facts = {"label": str(test.idxmin()), "number": int(test.min()), "part": "test"}
        return [Finding("warning", "classes-rare", facts)]
    return [Finding("ok", "classes", {"fewest": int(test.min())})]


def _folds(phase: Phase, deal: Deal) -> list[Finding]:
    """In each fold there must be members and non-members, in this deal and in that of every entry to come."""
    fewest = int(np.bincount(deal.scored_fold, minlength=phase.folds).min())
    if fewest < _FEWEST_IN_FOLD or not _has_both_in_each_fold(deal, phase.folds):
        facts = {"phase": phase.kind, "number": fewest, "least": _FEWEST_IN_FOLD}
        return [Finding("error", "folds-small", facts)]
    return []


def _has_both_in_each_fold(deal: Deal, folds: int) -> bool:
    """Whether two members and two non-members at least are scored in each fold: else nothing can be told apart."""
    inside = [deal.scored_member[deal.scored_fold == fold] for fold in range(folds)]
    return all(min(int(member.sum()), int((~member).sum())) >= 2 for member in inside)


def _blind(phase: Phase, schema: Schema, table: pd.DataFrame, rows: Positions) -> Finding:
    """The deal draws membership without a look at the records: it cannot be guessed from them, over several draws."""
    try:
        deals = [phase.deal(scope=_SCOPE, seed=seed) for seed in range(_BLIND_DRAWS)]
        results = [blind.classifier(table, schema, subsample.restricted(deal, rows)) for deal in deals]
    except TableError as error:
        return Finding("error", "blind-failed", {"problem": str(error)})
    auc = float(np.mean([result.auc for result in results]))
    at_chance = [(r.members + r.nonmembers + 1) / (12 * r.members * r.nonmembers) for r in results]  # Mann-Whitney
    z = (auc - 0.5) * len(results) / (_SPREAD * math.sqrt(sum(at_chance)))
    facts = {"auc": auc, "z": round(abs(z), 1)}
    if z > _BROKEN:
        return Finding("error", "blind-broken", facts)
    # far below chance is odd, but nothing that an attack could use: cross-validation errs to that side when all is well
    return Finding("warning", "blind-odd", facts) if abs(z) > _ODD else Finding("ok", "blind", facts)


def _anchors(
    challenge: Challenge, schema: Schema, table: pd.DataFrame, deal: Deal
) -> tuple[list[Finding], Anchors | None]:
    try:
        computed = anchors.compute(table, schema, deal, challenge.metric)
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
