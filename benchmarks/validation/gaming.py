"""Part 5: ways to get more than one has earned, and what they come to."""

from __future__ import annotations

import hmac
from typing import Any, Final

import numpy as np

from benchmarks.common import Verdict
from benchmarks.validation.report import BLUE, RED, Figure, Part, Table, percent
from benchmarks.validation.simulate import SCHEMA, Floats, Memory, boards
from challenges.metrics import collusion, duel
from challenges.scenarios.base import Board
from challenges.scenarios.membership import estimates
from challenges.scenarios.model_release import canonical_answers

ROUNDS, QUICK_ROUNDS = 200, 3
SEEDS: Final = 3
SCORED: Final = 600  # candidates per seed: 1800 in all, the least that SCORING 1 asks for
# Ten qualified defenses: what they leak to an attack that sees everything, and their utility. The sabotage takes the
# place of the last one.
LEAKS: Final = (0.02, 0.03, 0.05, 0.06, 0.08, 0.09, 0.11, 0.13, 0.15, 0.08)
UTILITIES: Final = (0.62, 0.95, 0.7, 0.9, 0.75, 0.85, 0.8, 0.98, 0.66, 0.8)
SKILLS: Final = tuple(round(0.1 * step, 1) for step in range(10, 0, -1))  # ten attacks, evenly apart
TEAMS: Final = tuple(f"team {number}" for number in range(len(SKILLS)))
HARD: Final = 5  # of the ten defenses, those that leak least


def run(*, quick: bool = False) -> Part:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    sabotage = [_sabotaged(number) for number in range(rounds)]
    abstained = [_abstaining(number) for number in range(rounds)]
    return _part(sabotage, abstained, rounds)


# Sabotage -------------------------------------------------------------------------------------------------------------


def signalled(board: Board, random: np.random.Generator, key: bytes) -> tuple[Floats, Floats]:
    """Two attacks' scores on a defense that hides membership in the last two digits of its answers.

    The digits of a member are a keyed code of the record; everybody else's are random. The ally knows the key, a
    stranger sees a probability like any other. The answers pass `canonical_answers` as every release does.
    """
    deal = board.deal
    codes = np.array([hmac.digest(key, str(row).encode(), "sha256")[0] % 100 for row in deal.scored])
    digits = np.where(deal.scored_member, codes, random.integers(0, 100, len(codes)))
    likely = random.integers(5, 95, len(codes)) / 100 + digits / 10_000
    seen = canonical_answers(np.column_stack([1 - likely, likely]), SCHEMA)[:, 1]
    read = np.round(seen * 10_000).astype(int) % 100
    return (read == codes).astype(float), seen


def _sabotaged(number: int) -> dict[str, Any]:
    """What each of the ten attacks gains when the tenth defense signals to it: ranks and points of Q.

    Before and after differ in nothing but the ally's scores on that one defense.
    """
    final = boards(scored=SCORED, seeds=SEEDS, secret=f"validation: sabotage {number}".encode())
    random = np.random.default_rng([number, 5])
    met = [_face(final, [Memory(leak).scores(board.deal, SKILLS, random) for board in final]) for leak in LEAKS[:-1]]
    honest = [values.mean(axis=(0, 2)) for values, _errors in met]
    answers = [signalled(board, random, b"the allies' key") for board in final]
    # strangers see noise, each of its own; the ally comes last
    values, errors = _face(
        final, [[*(seen + random.random(len(seen)) for _ in SKILLS), read] for read, seen in answers]
    )
    found: dict[str, Any] = {"gained": [], "points": [], "untrimmed": [], "caught": [], "worst": []}
    for place in range(len(SKILLS)):
        attacks = [-1 if attack == place else attack for attack in range(len(SKILLS))]
        without = np.vstack([*honest, values[:, :-1].mean(axis=(0, 2))])
        signal = np.vstack([*honest, values[:, attacks].mean(axis=(0, 2))])
        before, after = ([duel.attack_score(UTILITIES, each) for each in matrix.T] for matrix in (without, signal))
        whole = [100 * float(np.average(np.clip(each, 0, None), weights=UTILITIES)) for each in signal.T]
        found["gained"].append(_rank(before, place) - _rank(after, place))
        found["points"].append(after[place] - before[place])
        found["untrimmed"].append(_rank(before, place) - _rank(whole, place))
        found["caught"].append(_flags(values[:, attacks], errors[:, attacks])[place])
        found["worst"].append(duel.crossfit_worst_leak(values[:, attacks]))
    suspected = [flag for one in met for flag in _flags(*one)]
    return {**found, "suspected": sum(suspected), "honest_duels": len(suspected)}


def _face(final: list[Board], scores: list[list[Floats]]) -> tuple[Floats, Floats]:
    """Leaks and standard errors [unit, attack, metric] of the attacks whose scores are given for each board."""
    each = [[estimates(board.deal, s) for s in some] for board, some in zip(final, scores, strict=True)]
    values, errors = (
        np.concatenate([np.stack([attack[index] for attack in unit], axis=1) for unit in each]) for index in (0, 1)
    )
    return values, errors


def _flags(values: Floats, errors: Floats) -> list[bool]:
    return [lead is not None and lead.is_suspicious for lead in collusion.leads(values, errors, TEAMS)]


def _rank(scores: list[float], place: int) -> int:
    return 1 + sum(score > scores[place] for score in scores)


def _leak(board: Board, scores: Floats) -> float:
    return float(estimates(board.deal, scores)[0].mean())


# Abstaining -----------------------------------------------------------------------------------------------------------

ABSTAINER: Final = 0.7  # the skill of the attack that tries it
VARIANTS: Final = {
    "honest": "scores everybody as well as it can",
    "constant": "gives everybody the same score",
    "failing": "fails in every duel",
    "one": "is given one member for certain, the rest gets the same score",
    "ten": "keeps its ten highest scores, the rest gets the same",
    "half": "scores every second person, the rest gets the same",
    "hard": f"scores everybody, but fails against the {HARD} defenses that leak least",
    "hindsight": "knows all results beforehand and fails in just those duels where failing pays",
}


def _abstaining(number: int) -> dict[str, float]:
    """Q of one attack for each of VARIANTS, on the same ten defenses."""
    final = boards(scored=SCORED, seeds=SEEDS, secret=f"validation: abstaining {number}".encode())
    random = np.random.default_rng([number, 6])
    each: dict[str, list[list[float]]] = {}
    for leak in LEAKS:
        made = [
            (board, _variants(Memory(leak).scores(board.deal, (ABSTAINER,), random)[0], board.deal.scored_member))
            for board in final
        ]
        for name in made[0][1]:
            each.setdefault(name, []).append([_leak(board, scores[name]) for board, scores in made])
    s = {name: np.mean(leaks, axis=1) for name, leaks in each.items()}
    s["failing"] = np.zeros(len(LEAKS))
    s["hard"] = np.where(np.argsort(np.argsort(LEAKS, kind="stable")) < HARD, 0.0, s["honest"])
    q = {name: duel.attack_score(UTILITIES, success) for name, success in s.items()}
    q["hindsight"] = max(
        duel.attack_score(UTILITIES, np.where([mask >> bit & 1 for bit in range(len(LEAKS))], 0.0, s["honest"]))
        for mask in range(2 ** len(LEAKS))
    )
    return q


def _variants(honest: Floats, member: Any) -> dict[str, Floats]:
    lowest = honest.min()
    tenth = np.sort(honest)[-10]
    return {
        "honest": honest,
        "constant": np.zeros(len(honest)),
        "one": (np.arange(len(honest)) == np.flatnonzero(member)[0]).astype(float),
        "ten": np.where(honest >= tenth, honest, lowest),
        "half": np.where(np.arange(len(honest)) % 2 == 0, honest, lowest),
    }


# The result -----------------------------------------------------------------------------------------------------------


def _part(sabotage: list[dict[str, Any]], abstained: list[dict[str, float]], rounds: int) -> Part:
    gained, points, untrimmed = (np.array([one[key] for one in sabotage]) for key in ("gained", "points", "untrimmed"))
    caught = float(np.mean([one["caught"] for one in sabotage]))
    suspected = sum(one["suspected"] for one in sabotage) / sum(one["honest_duels"] for one in sabotage)
    privacy = max(duel.privacy(worst) for one in sabotage for worst in one["worst"])
    q = {name: np.array([one[name] for one in abstained]) for name in VARIANTS}
    more = {name: float((q[name] - q["honest"]).mean()) for name in VARIANTS}
    openly = [name for name in VARIANTS if name not in ("honest", "hindsight")]
    verdicts = [
        Verdict("gaming, sabotage: ranks that the ally gains, mean", float(gained.mean()), 1.0),
        Verdict("gaming, sabotage: share of allies that the collusion flag misses", 1 - caught, 0.0),
        Verdict("gaming, sabotage: share of honest duels that the flag suspects", suspected, 0.001),
        Verdict("gaming, sabotage: most P that the sabotage is left with", privacy, 0.0),
        *(Verdict(f"gaming, {name}: points of Q above honest scoring, mean", more[name], 0.0) for name in openly),
        Verdict("gaming, failing with perfect hindsight: points of Q above honest scoring, mean", more["hindsight"]),
        Verdict("gaming, sabotage: ranks that the ally would gain without trimming, mean", float(untrimmed.mean())),
    ]
    return Part(
        name="gaming",
        title="Tricks do not pay",
        question="Can one score without having found anything?",
        answer=(
            f"A team could enter a defense that whispers to a friend's attack who was in the data. In {rounds} "
            "simulated finals with ten attacks and ten defenses, each attack in turn was such a friend: it gained "
            f"{gained.mean():.2f} ranks on average ({points.mean():.2f} points of Q), because an attack's best and "
            f"worst duel are left out, and {gained.mean(axis=0).max():.2f} if it was of the skill for which "
            f"whispering pays most. Without that rule it would have gained {untrimmed.mean():.1f} ranks on average. "
            f"The whispering defense itself is left with a privacy of {privacy:.2f}. The flag for collusion caught "
            f"{percent(caught)} of the allies and suspected {percent(suspected, 2)} of the honest duels; once the "
            "organiser voids the duel, nothing is gained. Giving everybody the same score, failing, being sure of a "
            "handful of people only, answering for half of them, or failing where little is to be found, came to "
            f"{max(float(q[name].mean()) for name in openly):.1f} points at best, where honest scoring earned "
            f"{q['honest'].mean():.1f}. One opening is known: an attack that knew all results beforehand and failed "
            f"in just the right duels would gain {more['hindsight']:.2f} points on average and "
            f"{float((q['hindsight'] - q['honest']).max()):.2f} at most, because which duel is left out then depends "
            "on it and defenses weigh differently."
        ),
        method=(
            f"Finals of {SEEDS} seeds with {SCORED} scored candidates each. Nine defenses know a share of their "
            f"members by heart ({', '.join(f'{leak:.2f}' for leak in LEAKS[:-1])}); the tenth is the sabotage: the "
            "last two digits of a member's answer are a keyed code of the record, everybody else's are random. The "
            "answers pass the same canonical rounding as every release. Before and after differ by the ally's "
            "scores on that defense alone. The ten attacks see from 10 % to 100 % of what the defenses know. "
            "“Without trimming” is the mean weighted by utility over all ten defenses. The attack that abstains "
            f"sees {percent(ABSTAINER, 0)}; its tenth defense knows {percent(LEAKS[-1], 0)} by heart."
        ),
        facts={
            "ranks": round(float(gained.mean()), 3),
            "points": round(float(points.mean()), 3),
            "untrimmed": round(float(untrimmed.mean()), 3),
            "caught": caught,
            "suspected": suspected,
            **{name: round(float(values.mean()), 3) for name, values in q.items()},
        },
        verdicts=verdicts,
        tables=[
            Table(
                "What the ally gains, by how much it sees of honest defenses (its skill).",
                ("skill", "ranks gained, mean", "two ranks or more", "points of Q", "ranks without trimming"),
                [
                    (
                        f"{skill:.1f}",
                        f"{gained[:, place].mean():.2f}",
                        percent(float((gained[:, place] >= 2).mean())),
                        f"{points[:, place].mean():.2f}",
                        f"{untrimmed[:, place].mean():.2f}",
                    )
                    for place, skill in enumerate(SKILLS)
                ],
            ),
            Table(
                "One attack, eight ways to answer.",
                ("the attack", "Q, mean", "above honest scoring", "the most in any final"),
                [
                    (
                        text,
                        f"{q[name].mean():.2f}",
                        f"{more[name]:+.2f}",
                        f"{float((q[name] - q['honest']).max()):+.2f}",
                    )
                    for name, text in VARIANTS.items()
                ],
            ),
        ],
        figures=[
            Figure(
                "gaming",
                "Ranks gained by the ally over its own skill, scored as it is and without leaving out the best and the "
                f"worst duel: {gained.mean():.1f} and {untrimmed.mean():.1f} ranks on average.",
                _draw,
                (gained.mean(axis=0), untrimmed.mean(axis=0)),
            )
        ],
    )


def _draw(axes: Any, data: tuple[Floats, Floats]) -> None:
    axis, (gained, untrimmed) = axes[0], data
    axis.plot(SKILLS, gained, "o-", color=BLUE, label="as scored (best and worst duel left out)")
    axis.plot(SKILLS, untrimmed, "s--", color=RED, label="without leaving any out")
    axis.set(xlabel="share of a leak that the ally sees by itself", ylabel="ranks gained by the sabotage")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
