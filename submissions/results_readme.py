"""What every column of the exported results means: the README that goes with them."""

from typing import Final

from challenges.models import Challenge, Phase

_MATRIX: Final = {
    "defense": "Id of the defense (see entries).",
    "attack": "Id of the attack (see entries).",
    "defense_name": "Name of the defense.",
    "attack_name": "Name of the attack.",
    "seed": "Number of the release, from 0: the defense is run anew, with other members, for each seed.",
    "unit": "Number of the cross-fitting unit (fold of the scored candidates) within the seed, from 0; empty if the "
    "duel has no result.",
    "state": "`done`, `failed` or `pending`. A failed duel counts as leak 0 for the attack and is ignored for the "
    "defense: in the units of that seed the worst attack is sought among those that have a result there.",
    "failure": "Why it failed; `platform_fault` counts for nobody.",
    "suspected": "The platform flagged it: this attack leaks more than 0.15, and more than 4 standard errors, above "
    "every other attack on the same release.",
    "voided": "An organiser voided it: it counts nowhere.",
    "void_reason": "The public reason for that.",
}
_MATRIX_END: Final = {
    "detail": "Further numbers of the whole duel as JSON, the same in each of its units. Membership: `auc`, `tpr` at "
    "false-positive rate `alpha`, `advantage` = max(TPR - FPR), `epsilon` (audited lower bound), `members`, "
    "`nonmembers` (numbers of scored candidates). Residual risk: for each leak the rates `attack` (people in the "
    "data) and `control` (people who are not) with their numbers of people.",
}
RELEASES: Final = {
    "defense": "Id of the defense.",
    "defense_name": "Name of the defense.",
    "seed": "Number of the release, from 0.",
    "raw_utility": "u: the challenge's metric on the test part (see constants.json).",
    "sha256": "Hash of the canonical files of the release.",
    "facts": "Further numbers about its usefulness as JSON, never ranked by.",
}
BOARDS: Final = {
    "kind": "`defense` or `attack`: which board.",
    "rank": "Place on the board; empty for anchors and baselines, which are never ranked.",
    "band": "Rank band: entries of one band cannot be told apart by their 95 % intervals; 1 is the leaders'.",
    "entry": "Id of the entry.",
    "name": "Its name.",
    "team": "Its team; empty for the organisers' own.",
    "role": "`entry`, or the organisers' `trivial`, `tuned`, `leaky` (anchors) and `baseline`.",
    "qualified": "Defenses: every seed ran, utility is at least the threshold, and W over the baselines alone is below "
    "the reference leak.",
    "utility": "U = clip((mean over seeds of u - u0) / (u1 - u0), 0, 1).",
    "worst_leak": "W before clipping: in each unit the leak of the attack and metric that leak most on average over "
    "the other units; the mean of these. By chance it may be below 0.",
    "privacy": "P = clip(1 - clip(W, 0, 1) / W_ref, 0, 1).",
    "mean_leak": "Attacks: mean of s over the defenses that count.",
    "score": "Defenses: by the challenge's `ranking` (constants.json); by default (`harmonic`) S = 100 * 2UP/(U + P), "
    "0 if not qualified. Attacks: Q = 100 * sum(U_d * s_d) / sum(U_d) over "
    "other teams' qualified defenses, one per team; with five or more, the lowest and highest s are dropped. "
    "s = max(0, mean of all leaks against the defense).",
    "worst_leak_error": "Standard error of worst_leak.",
    "worst_attack": "Id of the attack that W rests on (in the first unit).",
    "public_utility": "As participants see it: rounded to 0.01.",
    "public_worst_leak": "As participants see it.",
    "public_privacy": "As participants see it: from the rounded worst leak.",
    "public_mean_leak": "As participants see it.",
    "public_score": "As participants see it: from the rounded numbers. The order of the boards.",
}
INTERVALS: Final = {
    "entry": "Id of the entry.",
    "quantity": "`utility`, `worst_leak`, `privacy`, `mean_leak` or `score`, as in boards.",
    "value": "The estimate.",
    "low": "Lower end of the 95 % interval: 2.5 % percentile over the resamples.",
    "high": "Upper end: 97.5 % percentile.",
}
CONTROLS: Final = {
    "attack": "Id of the attack.",
    "attack_name": "Its name.",
    "anchor_name": "The anchor that was run once more, on people who were dealt again, to give the attack its release.",
    "seed": "Number of the anchor's release, from 0, with which everything but the release is shared.",
    "state": "`done`, `failed` or `pending`.",
    "failure": "Why it failed.",
    "leak": "How much more the attack took, as a mean over all units and leaks, than the same answers take on average "
    "when the coins of the people it was asked about are tossed again. The mean over seeds counts.",
    "error": "Standard deviation of that over 100 such tosses. An attack that knows nothing but the release is further "
    "than 4 of them from 0 about once in 8,000 times.",
    "detail": "As in matrix.",
}
ENTRIES: Final = {
    "entry": "Id of the entry.",
    "kind": "`defense` or `attack`.",
    "role": "As in boards.",
    "name": "Its name.",
    "team": "Its team.",
    "state": "Its state when this was exported.",
    "entered_at": "When it was entered (ISO 8601). Ties between attacks go to the earlier one.",
    "image": "Id of its container image.",
    "declared_epsilon": "Epsilon of differential privacy that the team declares; nobody verified it.",
    "declared_delta": "The delta that goes with it.",
}


def matrix_columns(metrics: tuple[str, ...]) -> list[str]:
    """The columns of the matrix, in order; `metrics` are the scenario's leaks."""
    return [*_matrix(metrics)]


def text(challenge: Challenge, phase: Phase, metrics: tuple[str, ...]) -> str:
    """README.md, in English."""
    tables = {
        "matrix": ("One row for each duel (attack, release) and cross-fitting unit.", _matrix(metrics)),
        "releases": ("One row for each run of a defense.", RELEASES),
        "boards": ("One row for each entry, best first, defenses before attacks.", BOARDS),
        "intervals": (
            "One row for each number with an interval: paired, stratified bootstrap of the candidates, 1000 resamples.",
            INTERVALS,
        ),
        "controls": (
            "One row for each attack and seed: the blind control, an attack on a release made from other people than "
            "those it is asked about. It counts nowhere.",
            CONTROLS,
        ),
        "entries": ("One row for each entry that takes part.", ENTRIES),
    }
    parts = [_head(challenge, phase)]
    for name, (what, columns) in tables.items():
        lines = "\n".join(f"| `{column}` | {meaning} |" for column, meaning in columns.items())
        parts.append(f"## {name}.csv, {name}.parquet\n\n{what}\n\n| column | meaning |\n| --- | --- |\n{lines}\n")
    return "\n".join(parts)


def _head(challenge: Challenge, phase: Phase) -> str:
    return (
        f"# Results of “{challenge.title}”, {phase.kind} phase\n\n"
        "Exact numbers, as the organisers see them: while the phase is not over, give them to no participant, who\n"
        "would learn more of the hidden split than the rounded boards tell. No record of the private data is in here.\n"
        "Formulas are those of the arena's scoring specification; constants and versions are in constants.json.\n"
        "Each table is there twice, as CSV (UTF-8, with a header) and as Parquet. Leaks and utilities are between 0\n"
        "and 1 (by chance a leak may be below 0), scores between 0 and 100.\n\n"
        "`challenges.metrics.duel` computes the boards again: `crossfit` of the leaks of a defense as an array\n"
        "[seed and unit][attack][metric] gives W, `normalised_utility` of its raw utilities gives U. An attack\n"
        "counts if its duels are over for every seed and one of them has a result; `present` says in which units it\n"
        "has one. No voided duel counts, and none that the platform spoilt.\n"
    )


def _matrix(metrics: tuple[str, ...]) -> dict[str, str]:
    leaks = {f"leak_{name}": f"The signed leak by `{name}`: {_LEAKS.get(name, _RISK)}" for name in metrics}
    errors = {f"error_{name}": f"Standard error of leak_{name}." for name in metrics}
    return {**_MATRIX, **leaks, **errors, **_MATRIX_END}


_LEAKS: Final = {
    "auc": "A = 2 AUC - 1, ties by midranks.",
    "tpr": "B = (T - alpha) / (1 - alpha), T the true-positive rate at a false-positive rate of at most alpha.",
}
_RISK: Final = "R = (r_attack - r_control) / (1 - r_control), rates of success on people in the data and on others."
