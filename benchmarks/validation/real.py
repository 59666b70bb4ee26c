"""Part 4: real patients, real models and real attacks come out in the order that the literature knows."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.common import Verdict
from benchmarks.validation.report import BLUE, GREEN, RED, Figure, Part, Table, percent, plus_minus
from benchmarks.validation.simulate import Floats
from challenges import anchors, splits, tables
from challenges.metrics import duel, ranking
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game, Leaks, Utility
from challenges.splits import Sizes

KITS: Final = Path(__file__).parents[2] / "starter_kits"
ENTRIES: Final = Path(__file__).parent / "entries"
SCENARIO: Final = registry.get("model-membership")
SEEDS: Final = 3
SIZES: Final = Sizes(aux=2000, core=300, candidates=3000)
DAYS: Final = 180
# The outcome itself, predictions of it by others, and what was found out or decided after the first days.
LEFT_OUT: Final = ("event", "time", "num_surv2m", "num_surv6m", "num_sps", "fac_sfdm2", "fac_dnr", "fac_num_co")


@dataclass(frozen=True)
class Program:
    """An entry: its script, and what the environment says to it. `family` is the kind of a defense."""

    title: str
    script: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    family: str = ""


DEFENSES: Final = {
    "majority": Program("the same answer for everybody", KITS / "majority" / "defense.py", family="trivial"),
    "dp-1": Program("DP-SGD, epsilon 1", ENTRIES / "dp_sgd.py", {"EPSILON": "1"}, "private"),
    "dp-8": Program("DP-SGD, epsilon 8", ENTRIES / "dp_sgd.py", {"EPSILON": "8"}, "private"),
    "linear": Program("linear model, strong penalty", ENTRIES / "fitted.py", {"MODEL": "linear"}, "regularised"),
    "network": Program("network, trained too long", ENTRIES / "fitted.py", {"MODEL": "network"}, "over-trained"),
    "forest": Program("fully grown forest", KITS / "random-forest" / "defense.py", family="over-trained"),
}
ATTACKS: Final = {
    "random": Program("random", KITS / "random" / "attack.py"),
    "calibrated-loss": Program("calibrated loss", KITS / "calibrated-loss" / "attack.py"),
    "lira": Program("LiRA, 16 shadow models", KITS / "lira" / "attack.py"),
}


@dataclass(frozen=True)
class Played:
    """One defense over all seeds: its utilities, and the leaks of each attack."""

    utilities: list[Utility]
    leaks: dict[str, list[Leaks]]

    @property
    def values(self) -> Floats:
        """[seed, attack, metric]."""
        return np.stack([np.concatenate([one.values for one in met]) for met in self.leaks.values()], axis=1)

    @property
    def errors(self) -> Floats:
        """The standard errors of `values`."""
        return np.stack([np.concatenate([one.errors for one in met]) for met in self.leaks.values()], axis=1)

    @property
    def replicates(self) -> Floats:
        """[R, seed, attack, metric]."""
        each = [
            np.concatenate([ranking.recentred(one.values, one.replicates) for one in met], axis=1)
            for met in self.leaks.values()
        ]
        return np.stack(each, axis=2)


def missing() -> str:
    """What the part needs and does not find: a sentence, empty if all is there."""
    try:
        import opacus  # noqa: F401
        import SurvSet  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        return f"{error}. The real data and DP-SGD come with an optional extra: pip install -e '.[validation]'"
    return ""


def support2() -> pd.DataFrame:
    """SUPPORT2 (Knaus et al., Annals of Internal Medicine 1995): 9,105 seriously ill adults in five US hospitals.

    The target is death within 180 days, which is known of all.
    """
    from SurvSet.data import SurvLoader

    raw = SurvLoader().load_dataset("support2")["df"]
    frame = raw.drop(columns=list(LEFT_OUT))
    frame.columns = [name.removeprefix("num_").removeprefix("fac_") for name in frame.columns]
    frame["died"] = np.where((raw["event"] == 1) & (raw["time"] <= DAYS), "yes", "no")
    return frame


def run(*, quick: bool = False) -> Part:
    """`quick` is not offered: a tiny version would say nothing. See `play`, which the tests use on other data."""
    with tempfile.TemporaryDirectory(prefix="anomed-validation-") as folder:
        frame = support2()
        boards, found = prepare(frame, "died", "pid", SIZES, SEEDS, Path(folder))
        played = {name: play(boards, program, ATTACKS, Path(folder) / name) for name, program in DEFENSES.items()}
    return _part(played, found, len(frame))


def prepare(
    frame: pd.DataFrame, target: str, patient: str | None, sizes: Sizes, seeds: int, folder: Path
) -> tuple[list[Board], anchors.Anchors]:
    """The boards of a final on this table, as the server makes them, and the anchors. The table stays in the folder."""
    upload, path = folder / "upload.parquet", folder / "table.parquet"
    frame.to_parquet(upload, index=False)
    schema = tables.profile(upload, ".parquet", target=target, patient=patient).schema
    tables.write_canonical(upload, schema, path)
    table = tables.read(path)
    secret = b"validation: real"
    game = Game("validation", SCENARIO.slug, schema, {"seconds": 600})
    boards = []
    for seed in range(seeds):
        deal = splits.deal(
            table, schema, secret=secret, challenge=game.slug, phase="final", scope="final", seed=seed, sizes=sizes
        )
        key, resample = splits.derive(secret, "run", str(seed)), splits.derive(secret, "resample")
        boards.append(Board(game, path, deal, key=key, seed=seed, resample=resample))
    return boards, anchors.compute(table, schema, boards[0].deal, game.metric)


def play(boards: list[Board], defense: Program, attacks: Mapping[str, Program], folder: Path) -> Played:
    """Every step of a defense and of the attacks on it, as the server plays them but for the containers."""
    utilities, leaks = [], {name: [] for name in attacks}
    for board in boards:
        place = folder / str(board.seed)
        after_fit = replace(board, previous=step("fit", board, defense, place / "fit"))
        release = step("predict", after_fit, defense, place / "predict")
        utilities.append(SCENARIO.utility(board, release))
        for name, attack in attacks.items():
            met = replace(board, release=release)
            leaks[name].append(SCENARIO.leaks(met, step("attack", met, attack, place / name)))
    return Played(utilities, leaks)


def step(name: str, board: Board, program: Program, folder: Path) -> Path:
    """Runs a program on the inputs that the scenario writes; returns the folder of its canonical result."""
    inputs, outputs, result = (folder / part for part in ("input", "output", "result"))
    for made in (inputs, outputs, result):
        made.mkdir(parents=True)
    SCENARIO.write_inputs(name, board, inputs)
    child = get_context("fork").Process(target=_start, args=(program, inputs, outputs))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{program.title} failed in the step {name}.")
    SCENARIO.read_outputs(name, board, outputs, result)
    return result


def _start(program: Program, inputs: Path, outputs: Path) -> None:
    """The program in a child of its own, which has imported the heavy libraries already: that saves minutes."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "ANOMED_INPUT": str(inputs),
        "ANOMED_OUTPUT": str(outputs),
        **program.environment,
    }
    sys.path[:0] = [str(program.script.parent), str(KITS / "base"), str(KITS / "dp-sgd")]
    for name, module in list(sys.modules.items()):  # whoever forked us may have imported them for other folders
        if str(getattr(module, "__file__", None) or "").startswith(str(KITS)):
            del sys.modules[name]
    warnings.simplefilter("ignore")  # of libraries, about entries that are not ours to change
    with Path(os.devnull).open("w", encoding="utf-8") as silence:
        sys.stdout = silence
        try:
            runpy.run_path(str(program.script), run_name="__main__")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os._exit(0)


# The result -----------------------------------------------------------------------------------------------------------

# From little to much leak, as in Abadi et al. (CCS 2016), Yeom et al. (CSF 2018), Jayaraman and Evans (USENIX Security
# 2019) and Carlini et al. (S&P 2022): privacy with a small epsilon, with a larger one, a strong penalty, over-training.
LEAK_ORDER: Final = ("majority", "dp-1", "dp-8", "linear", "network")
# From little to much utility, among the models with a promise and the one without.
UTILITY_ORDER: Final = ("majority", "dp-1", "dp-8", "linear")
ATTACK_ORDER: Final = ("random", "calibrated-loss", "lira")


def _part(played: dict[str, Played], found: anchors.Anchors, patients: int) -> Part:
    u = {name: np.array([one.value for one in each.utilities]) for name, each in played.items()}
    useful = {name: duel.normalised_utility(each, found.u0, found.u1) for name, each in u.items()}
    worst = {name: duel.crossfit(each.values, each.errors) for name, each in played.items()}
    ends = {
        name: ranking.interval(worst[name].mean, ranking.worst_leak(each.replicates)) for name, each in played.items()
    }
    success = {name: each.values.mean(axis=(0, 2)) for name, each in played.items()}
    error = {name: _error(each.errors) for name, each in played.items()}
    names = list(ATTACKS)
    over = [name for name, program in DEFENSES.items() if program.family == "over-trained"]
    mean = {attack: float(np.mean([success[name][names.index(attack)] for name in over])) for attack in names}
    spread = {
        attack: float(np.sqrt(np.sum([error[name][names.index(attack)] ** 2 for name in over]))) / len(over)
        for attack in names
    }
    worst_error = {name: (ends[name][1] - ends[name][0]) / (2 * 1.96) for name in played}
    verdicts = [
        *(
            _steps_back(f"real: W of {DEFENSES[low].title} above that of {DEFENSES[high].title}",
                        worst[low].mean - worst[high].mean, np.hypot(worst_error[low], worst_error[high]))
            for low, high in pairwise(LEAK_ORDER)
        ),
        *(
            _steps_back(f"real: utility of {DEFENSES[low].title} above that of {DEFENSES[high].title}",
                        u[low].mean() - u[high].mean(), _apart(played[low], played[high]))
            for low, high in pairwise(UTILITY_ORDER)
        ),
        *(
            _steps_back(f"real: success of {low} above that of {high} on over-trained models",
                        mean[low] - mean[high], np.hypot(spread[low], spread[high]))
            for low, high in pairwise(ATTACK_ORDER)
        ),
        # and the ends must be far apart, or all this would also hold of noise
        Verdict(
            "real: 0.20 over the smallest W of the over-trained models",
            0.20 / max(min(worst[name].mean for name in over), 1e-9),
            1.0,
        ),
        Verdict("real: 0.10 over the lead of calibrated loss on random, over-trained models",
                0.10 / max(mean["calibrated-loss"] - mean["random"], 1e-9), 1.0),
    ]  # fmt: skip
    facts = {
        name: {
            "u": round(float(u[name].mean()), 4),
            "U": round(useful[name], 3),
            "W": round(worst[name].mean, 4),
            "W_interval": [round(end, 4) for end in ends[name]],
            **{attack: round(float(success[name][place]), 4) for place, attack in enumerate(names)},
        }
        for name in played
    }
    return Part(
        name="real",
        title="Real patients, real models: the order of the literature",
        question="Do known models and known attacks come out in the order that research has found?",
        answer=(
            f"On {patients:,} seriously ill patients (SUPPORT2; will the patient die within {DAYS} days?) models "
            "were trained that are known to protect well, and models that are known to remember their patients. The "
            "worst leak of each, and its utility as AUROC: "
            + "; ".join(
                f"{DEFENSES[name].title} {percent(max(worst[name].mean, 0))}, {u[name].mean():.3f}" for name in played
            )
            + ". On the two over-trained models the attacks take: "
            + ", ".join(f"{ATTACKS[name].title} {percent(mean[name])}" for name in names)
            + ". The interval of the worst leak holds zero for "
            + ("; ".join(DEFENSES[name].title for name in played if ends[name][0] <= 0) or "none of them")
            + ": with this number of people these cannot be told from a model that leaks nothing."
        ),
        method=(
            "SUPPORT2 (Knaus et al. 1995) from the package SurvSet; outcome, others' predictions and later "
            f"decisions are left out ({', '.join(LEFT_OUT)}). A final of {SEEDS} seeds: {SIZES.candidates:,} "
            f"candidates, 2,400 of them scored, {SIZES.core} core, {SIZES.aux:,} aux. Programs are the starter kits "
            "(and two in `benchmarks/validation/entries/`), run step by step on the inputs that the scenario "
            f"writes; what they leave is read back by the scenario. Anchors: u0 = {found.u0:.3f}, u1 = "
            f"{found.u1:.3f} ({found.detail['best']}). DP-SGD with Opacus, delta = 0.00001. An order counts as found "
            "if no step goes back by more than two standard errors of the difference; those of W come from its "
            "interval, those of the utility from resamples of the test patients."
        ),
        facts=facts,
        verdicts=verdicts,
        tables=[
            Table(
                "Defenses: raw utility, normalised utility, worst leak with its 95 % interval, and what each "
                "attack took (mean of A and B ± standard error).",
                ("defense", "AUROC", "U", "W", "95 % interval", *(ATTACKS[name].title for name in names)),
                [
                    (
                        DEFENSES[name].title,
                        f"{u[name].mean():.3f}",
                        f"{useful[name]:.2f}",
                        f"{worst[name].value:.3f}",
                        f"{max(ends[name][0], 0):.3f} to {max(ends[name][1], 0):.3f}",
                        *(plus_minus(float(s), float(e)) for s, e in zip(success[name], error[name], strict=True)),
                    )
                    for name in played
                ],
            )
        ],
        figures=[
            Figure(
                "real",
                "Utility over worst leak with 95 % intervals, one point per defense: "
                + "; ".join(
                    f"{DEFENSES[name].title} U {useful[name]:.2f}, W {worst[name].value:.2f}" for name in played
                )
                + ".",
                _draw,
                [
                    (DEFENSES[name].title, DEFENSES[name].family, useful[name], worst[name].mean, ends[name])
                    for name in played
                ],
            )
        ],
    )


def _steps_back(what: str, difference: float, error: float) -> Verdict:
    """How far a step goes against the order, in standard errors of the difference."""
    return Verdict(
        f"{what}, in standard errors", float(difference / error) if error > 0 else float(np.sign(difference)), 2.0
    )


def _error(errors: Floats) -> Floats:
    """Standard errors of each attack's mean over seeds and metrics; A and B of one attack err together."""
    return np.sqrt((errors.mean(axis=2) ** 2).sum(axis=0)) / len(errors)


def _apart(one: Played, other: Played) -> float:
    """The standard error of the difference of two mean utilities, over the same resamples of the test patients."""
    each = [np.mean([utility.replicates for utility in played.utilities], axis=0) for played in (one, other)]
    return float((each[0] - each[1]).std())


def _draw(axes: Any, data: list[tuple[str, str, float, float, tuple[float, float]]]) -> None:
    colours = {"trivial": "#777777", "private": GREEN, "regularised": BLUE, "over-trained": RED}
    for number, (title, family, useful, worst, (low, high)) in enumerate(data):
        reach = [[worst - low], [high - worst]]
        axes[0].errorbar(
            [worst], [useful], xerr=reach, fmt="osD^vP"[number], color=colours[family], capsize=3, label=title
        )
    axes[0].set(xlabel="worst leak W", ylabel="utility U", xlim=(-0.08, 1.05), ylim=(-0.05, 1.1))
    axes[0].legend(frameon=False, loc="lower right")
