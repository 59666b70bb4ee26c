"""Part 3: how often the truly better of two entries ranks first, and how often equals are told apart."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from benchmarks.common import Verdict
from benchmarks.validation.report import BLUE, GREEN, RED, Figure, Part, Table, percent
from benchmarks.validation.simulate import Floats, Memory, Shift, boards
from challenges.metrics import duel, ranking
from challenges.scenarios.membership import estimates, membership_leaks

SEEDS: Final = 3
TOTALS: Final = (600, 1800, 6000)  # scored candidates times seeds; SCORING 1: 1800 is the least, 6000 is advised
BASE: Final = 0.05  # the true worst leak of the better entry
GAPS: Final = (0.01, 0.02, 0.05, 0.10)
SEEN: Final = (1.0, 0.5, 0.0, 0.0)  # one attack sees all of a leak, one half of it, two are useless
MORE_USELESS: Final = 30
ROUNDS, QUICK_ROUNDS = 150, 10
UTILITY: Final = 0.8  # of both entries, so that the leak decides
REFERENCE: Final = 0.20  # the leak at which nothing is left of privacy
KINDS: Final = {
    "memory": "both know some members by heart",
    "shift": "both are a little surer of every member",
    "mixed": "the better one knows some by heart, the worse one is surer of all",
    "late": f"as the first, but the better one met {MORE_USELESS} useless attacks more",
}
EQUALS: Final = 10
BAND_TOTAL: Final = 1800
BAND_ROUNDS, QUICK_BAND_ROUNDS = 120, 2

Key = tuple[str, int, float, str]


def run(*, quick: bool = False) -> Part:
    rounds, band_rounds = (QUICK_ROUNDS, QUICK_BAND_ROUNDS) if quick else (ROUNDS, BAND_ROUNDS)
    totals = TOTALS[:1] if quick else TOTALS
    won: dict[Key, list[float]] = {}
    for total in totals:
        for number in range(rounds):
            for kind, gap, better, worse in _pairs(total, number):
                for name, score in SCORES.items():
                    ahead = np.sign(score(better) - score(worse))
                    won.setdefault((kind, total, gap, name), []).append((1 + ahead) / 2)  # a tie is half a win
    banded = [_banded(number) for number in range(band_rounds)]
    return _part({key: float(np.mean(wins)) for key, wins in won.items()}, rounds, totals, banded)


# Two entries ----------------------------------------------------------------------------------------------------------


def _pairs(total: int, number: int) -> Iterator[tuple[str, float, Floats, Floats]]:
    """Leaks [seed, attack, metric] of the better and the worse entry of one final, for each kind of pair and gap."""
    final = boards(scored=total // SEEDS, seeds=SEEDS, secret=f"validation: order {total} {number}".encode())
    random = np.random.default_rng([total, number])

    def met(plant: Memory | Shift, seen: tuple[float, ...] = SEEN) -> Floats:
        each = [
            np.stack([estimates(board.deal, s)[0] for s in plant.scores(board.deal, seen, random)], axis=1)
            for board in final
        ]
        return np.concatenate(each)

    memory, shift = met(Memory(BASE)), met(Shift(BASE))
    busy = np.concatenate([memory, met(Memory(BASE), (0.0,) * MORE_USELESS)], axis=1)
    for gap in GAPS:
        worse_memory, worse_shift = met(Memory(BASE + gap)), met(Shift(BASE + gap))
        yield "memory", gap, memory, worse_memory
        yield "shift", gap, shift, worse_shift
        yield "mixed", gap, memory, worse_shift
        yield "late", gap, busy, worse_memory


def _arena(leaks: Floats) -> float:
    return duel.defense_score(UTILITY, duel.privacy(duel.crossfit_worst_leak(leaks), REFERENCE))


def _maximum(leaks: Floats) -> float:
    """The naive rule: the most that any attack took by any metric, over all the data at once."""
    return -float(leaks.mean(axis=0).max())


def _tpr_only(leaks: Floats) -> float:
    """The rule of earlier competitions: the highest true-positive rate at a small false-positive rate (as B orders)."""
    return -float(leaks.mean(axis=0)[:, 1].max())


SCORES: Final = {"arena": _arena, "maximum": _maximum, "TPR only": _tpr_only}


# Many equals ----------------------------------------------------------------------------------------------------------


def _banded(number: int) -> dict[str, bool]:
    """Whether a board of ten equals was split, one of two equals, and one of two that are 0.10 apart."""
    final = boards(scored=BAND_TOTAL // SEEDS, seeds=SEEDS, secret=f"validation: bands {number}".encode())
    random = np.random.default_rng([number, 3])
    entries = []
    for leak in (*(BASE for _ in range(EQUALS)), BASE + GAPS[-1]):
        values, replicates = [], []
        for board in final:
            met = [membership_leaks(board, s) for s in Memory(leak).scores(board.deal, (1.0, 0.0), random)]
            values.append(np.stack([one.values for one in met], axis=1))
            replicates.append(np.stack([ranking.recentred(one.values, one.replicates) for one in met], axis=2))
        worst = ranking.worst_leak(np.concatenate(replicates, axis=1))
        resampled = ranking.harmonic(np.full(len(worst), UTILITY), ranking.privacy(worst, REFERENCE))
        entries.append((_arena(np.concatenate(values)), resampled))
    return {
        "equals": _split(entries[:EQUALS]),
        "pair": _split(entries[:2]),
        "apart": _split([entries[0], entries[EQUALS]]),
    }


def _split(entries: list[tuple[float, Floats]]) -> bool:
    """Whether the bands of this board show more than one rank."""
    best_first = sorted(entries, key=lambda entry: -entry[0])
    return len(set(ranking.bands([score for score, _ in best_first], [resampled for _, resampled in best_first]))) > 1


# The result -----------------------------------------------------------------------------------------------------------


def _part(won: dict[Key, float], rounds: int, totals: tuple[int, ...], banded: list[dict[str, bool]]) -> Part:
    largest = totals[-1]
    split = {name: float(np.mean([one[name] for one in banded])) for name in banded[0]}
    verdicts = [
        Verdict(f"order, bands: share of boards that split {EQUALS} equals", split["equals"], 0.05),
        Verdict("order, bands: share of boards that split two equals", split["pair"], 0.05),
    ]
    if largest == TOTALS[-1]:
        # With a gap as large as this and as many candidates as advised, the right order is hardly ever missed.
        verdicts += [
            Verdict(
                f"order, {kind}, gap {gap:.2f}, {largest:,} candidates: share in which the worse entry ranks first",
                1 - won[kind, largest, gap, "arena"],
                at_most,
            )
            for kind in KINDS
            for gap, at_most in ((0.05, 0.10), (0.10, 0.02))
        ]

    def right(kind: str, total: int, gap: float, score: str) -> str:
        return percent(won[kind, total, gap, score], 0)

    return Part(
        name="order",
        title="The truly better entry ranks first",
        question="How far apart must two entries be, and how many people does it take, to rank them rightly?",
        answer=(
            f"Two defenses are equally useful, one of them leaks a little less; does it rank first? With {largest:,} "
            "scored candidates and a difference of five points of leak, the arena ranks the better one first in "
            f"{right('memory', largest, 0.05, 'arena')} of {rounds} finals if both know some members by heart and in "
            f"{right('shift', largest, 0.05, 'arena')} if both are a little surer of everybody; a difference of one "
            f"point is seen in {right('memory', largest, 0.01, 'arena')} and "
            f"{right('shift', largest, 0.01, 'arena')}, where a coin would be right in 50 %. Counting only the few "
            "people found at a low false-alarm rate (TPR only) is right in "
            f"{right('memory', largest, 0.05, 'TPR only')} and {right('shift', largest, 0.05, 'TPR only')} at five "
            "points; where the better one knows some by heart and the worse one is surer of all, in "
            f"{right('mixed', largest, 0.05, 'TPR only')}, the arena in {right('mixed', largest, 0.05, 'arena')}. "
            f"Taking the maximum over attacks is right in {right('memory', largest, 0.05, 'maximum')} of the first "
            f"kind; if the better entry met more attacks, at {totals[0]:,} candidates and two points, in "
            f"{right('late', totals[0], 0.02, 'maximum')}, the arena in {right('late', totals[0], 0.02, 'arena')}. "
            "Entries that cannot be told apart share a rank: a board of ten equals was wrongly split in "
            f"{percent(split['equals'])} of {len(banded)} finals, one of two equals in {percent(split['pair'])}, and "
            f"two that are ten points apart were told apart in {percent(split['apart'])}."
        ),
        method=(
            f"Finals of {SEEDS} seeds, dealt by `challenges.splits.deal`, the same members for all entries. Both "
            f"entries have utility {UTILITY}; the better one has the true worst leak {BASE}. One attack sees all of "
            "a leak, one half of it, two are useless. “Arena” is S of `challenges.metrics.duel` with the "
            "cross-fitted W; “maximum” ranks by the largest leak over all attacks and both metrics; “TPR only” by "
            "the largest true-positive rate at the false-positive rate alpha. Ties count half. Standard error of a "
            f"share: at most {percent(0.5 / np.sqrt(rounds))}. Bands come from `challenges.metrics.ranking.bands`, "
            f"with {BAND_TOTAL:,} candidates and two attacks; standard error of a share of 5 %: "
            f"{percent(np.sqrt(0.0475 / len(banded)))}."
        ),
        facts={
            **{f"{kind} {total} {gap} {name}": round(share, 3) for (kind, total, gap, name), share in won.items()},
            **{f"bands {name}": round(share, 3) for name, share in split.items()},
        },
        verdicts=verdicts,
        tables=[
            Table(
                "How often the truly better of two entries ranks first.",
                ("entries", "gap in W", "candidates x seeds", *SCORES),
                [
                    (KINDS[kind], f"{gap:.2f}", f"{total:,}", *(right(kind, total, gap, name) for name in SCORES))
                    for kind in KINDS
                    for gap in GAPS
                    for total in totals
                ],
            ),
            Table(
                f"How often rank bands split a board ({len(banded)} finals of {BAND_TOTAL:,} candidates x seeds).",
                ("board", "split"),
                [
                    (f"{EQUALS} equals (wrong)", percent(split["equals"])),
                    ("two equals (wrong)", percent(split["pair"])),
                    (f"two that are {GAPS[-1]:.2f} apart (right)", percent(split["apart"])),
                ],
            ),
        ],
        figures=[
            Figure(
                "order",
                f"Share of right orders over the true gap at {largest:,} candidates, a panel per kind of pair. At "
                "gap 0.05 "
                + "; ".join(
                    f"{kind}: arena {right(kind, largest, 0.05, 'arena')}, maximum "
                    f"{right(kind, largest, 0.05, 'maximum')}, TPR only {right(kind, largest, 0.05, 'TPR only')}"
                    for kind in KINDS
                )
                + ".",
                _draw,
                (
                    largest,
                    {
                        kind: {name: [won[kind, largest, gap, name] for gap in GAPS] for name in SCORES}
                        for kind in KINDS
                    },
                ),
                panels=4,
            )
        ],
    )


def _draw(axes: Any, data: tuple[int, dict[str, dict[str, list[float]]]]) -> None:
    total, shares = data
    strokes = dict(zip(SCORES, ((BLUE, "o-"), (RED, "s--"), (GREEN, "^:")), strict=True))
    for axis, (kind, scores) in zip(axes, shares.items(), strict=True):
        for name, right in scores.items():
            axis.plot(GAPS, right, strokes[name][1], color=strokes[name][0], label=name)
        axis.axhline(0.5, color="#222222", linewidth=0.8, linestyle=":")
        axis.set_title(textwrap.fill(KINDS[kind], 30), fontsize=9)
        axis.set(xlabel="true gap in W", ylim=(0, 1.02))
    axes[0].set_ylabel(f"better entry first ({total:,} candidates)")
    axes[0].legend(frameon=False)
