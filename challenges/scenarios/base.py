"""What every game offers to the rest of the house, and what it needs to know to do so. Pure, but for lazy texts."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import pandas as pd
from django.utils.translation import gettext_lazy as _
from numpy.typing import NDArray

from challenges.metrics.exposure import Told
from challenges.metrics.utility import METRICS_OF
from challenges.scenarios import options
from challenges.scenarios.criteria import Criterion
from challenges.scenarios.options import Option
from challenges.scenarios.words import Words
from challenges.schema import Schema
from challenges.splits import Deal

if TYPE_CHECKING:
    from challenges.anchors import Anchors
    from challenges.findings import Finding
    from challenges.scenarios.trials import Trial

CONTRACT = "anomed/1"
Floats = NDArray[np.float64]
# What measures of membership are called in `Leaks.detail`. Leaks that are named by columns stand beside them.
MEASURES: Final = frozenset({"auc", "tpr", "alpha", "advantage", "epsilon", "members", "nonmembers"})
ProblemKind = Literal["missing", "invalid", "too_large"]
_SECRET_READ: Final = _(
    "It finds out “%(metric)s” for %(rate)s of 100 people in the data%(span)s, and for %(chance)s of 100 "
    "people who are not in the data."
)


class OutputProblem(Exception):
    """What a container wrote cannot be used: `kind` names the failure, `sentence` says it plainly.

    Sentences quote column names of the challenge, never a value that the container wrote.
    """

    def __init__(self, kind: ProblemKind, sentence: str) -> None:
        super().__init__(kind, sentence)
        self.kind = kind
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Game:
    """The published rules of one challenge, without its data. `limits` goes into task.json as it is."""

    slug: str
    scenario: str
    schema: Schema
    limits: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "auroc"
    white_box: bool = False
    reference_leak: float = 0.20
    u0: float | None = None
    u1: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Board:
    """Everything a step needs: the game, the canonical table and its deal, and where earlier steps left their results.

    `key` is this run's secret: its row tokens and shuffles derive from it, so that the step can be replayed.
    `release` is the folder of the release under attack; `previous` the result folder of the step before.
    `resample` is the key of the bootstrap, the same for all of a phase: what is compared is compared over the same
    resamples, and the test part, which all seeds share, is resampled once for all of them. Unless
    `resampled`, leaks have no replicates. `other` is the deal that the release under attack was made with where that is
    not `deal`: in a blind control (SCORING 4) all but the release follows from `deal`.
    """

    game: Game
    table: Path
    deal: Deal
    key: bytes
    seed: int
    release: Path | None = None
    previous: Path | None = None
    resample: bytes = b""
    resampled: bool = True
    other: Deal | None = None

    @property
    def released(self) -> Deal:
        """The deal that the release under attack was made with."""
        return self.other or self.deal


@dataclass(frozen=True, eq=False)
class Utility:
    """What a release is worth by the challenge's metric.

    `value` is the raw utility u of SCORING 2; `replicates` [RESAMPLES] the same over resamples of the test part, paired
    by `Board.resample`; `facts` further plain numbers for readers, never ranked by.
    """

    value: float
    replicates: Floats
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Leaks:
    """What one duel showed, signed, for each cross-fitting unit (fold) and each of `Scenario.metrics`.

    `values` [units, metrics] and `errors` (standard errors, the same shape); `replicates` [RESAMPLES, units, metrics]:
    the values over resamples of the candidates, paired by `Board.resample`; `detail`: plain numbers for readers.
    Membership: the leaks A and B of SCORING 3; detail `auc`, `tpr` (at false-positive rate `alpha`), `advantage`,
    `epsilon` (audited lower bound), `members`, `nonmembers`. Residual risk: (r_a - r_c) / (1 - r_c) for each secret,
    clipped only where it is shown; detail per metric `attack`, `control`, `n_attack`, `n_control`, `value`, `lower`,
    `upper`.
    """

    values: Floats
    errors: Floats
    replicates: Floats
    detail: dict[str, Any]


class Images(ABC):
    """What images of one contract get in the steps of a game, and what is made of what they leave.

    Releases and results are the same whatever contract an image keeps to. Stateless, as scenarios are.
    """

    @abstractmethod
    def collect(self, step: str) -> dict[str, list[str]]:
        """What is fetched from /output after this step: names of tables (without suffix), files and folders."""

    @abstractmethod
    def write_inputs(self, step: str, board: Board, folder: Path) -> None:
        """Fills `folder`, which becomes /input."""

    @abstractmethod
    def read_outputs(self, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Reads the hostile files in `collected`, writes canonical ones into `result`, returns a few facts.

        Runs in an isolated child. Raises OutputProblem.
        """

    def read_account(self, told: Path) -> dict[str, Any]:
        """What is told of an exchange that failed, from its hostile exchange.json, as `read_outputs` has it in "web".

        Runs in an isolated child. Raises OutputProblem; LookupError where images do not talk.
        """
        raise LookupError("Images of this contract read and write files.")

    # Live questions: an attack asks a release's defense about rows that nobody has an answer for yet

    def query_budget(self, game: Game) -> int | None:
        """How many rows an attack may ask a release about in one duel; None where nothing can be asked."""
        return None

    def write_questions(self, board: Board, asked: Path, folder: Path) -> int:
        """Fills `folder`, which becomes /input of a run of the defense's last step, with the rows in the hostile npz
        `asked` (its array X, as in `web.inputs`); returns their number.

        `board` is that of the defense's last step (`previous` holds what its step before left) with a key of its own
        for this question. Runs in an isolated child. Raises OutputProblem; LookupError where releases answer nothing.
        """
        raise LookupError("The releases of this game answer no questions.")

    def read_answers(self, board: Board, asked: Path, collected: Path, answers: Path) -> None:
        """Turns the outputs of that run, with the same board and question, into the file `answers`: an npz with the
        arrays prediction [rows] (as y in `web.targets`) and probabilities [rows, classes] (not for regression).

        Runs in an isolated child. Raises OutputProblem.
        """
        raise LookupError("The releases of this game answer no questions.")


class Scenario(Images):
    """One kind of game. Stateless: everything about a run is in its board.

    As `Images` it is that of contract anomed/1; `images` has those of the others.
    """

    slug: ClassVar[str]
    title: ClassVar[Any]
    summary: ClassVar[Any]
    defense_steps: ClassVar[tuple[str, ...]]
    attack_step: ClassVar[str] = "attack"
    # Settings of its challenges; and what its check may find beside the findings all know: code: (title, sentence).
    options: ClassVar[tuple[Option, ...]] = ()
    sentences: ClassVar[Mapping[str, tuple[Any, Any]]] = {}
    # What its attacks say about the three criteria of WP 216; one that is not named counts as not measured.
    criteria: ClassVar[Mapping[str, Criterion]] = {}
    # What each of its leaks says in a sentence, by metric: %(rate)s of 100 and the %(span)s of its interval, %(chance)s
    # of 100 without the release. Metrics that are not named are secrets which attacks find out.
    readings: ClassVar[Mapping[str, Any]] = {}
    # What boards and matrix say its attacks are after.
    words: ClassVar[Words]
    # Images of other contracts than anomed/1 that can play it.
    others: ClassVar[Mapping[str, Images]] = {}

    @property
    def steps(self) -> tuple[str, ...]:
        """All steps that a container can be started for."""
        return (*self.defense_steps, self.attack_step)

    @property
    def contracts(self) -> tuple[str, ...]:
        """The contracts that an image may keep to in this game, the platform's own first."""
        return (CONTRACT, *self.others)

    def images(self, contract: str) -> Images:
        """What images of this contract get and leave. Raises LookupError if none of them can play this game."""
        if contract == CONTRACT:
            return self
        if contract not in self.others:
            raise LookupError(f"No image of the contract {contract} can play {self.slug}.")
        return self.others[contract]

    @abstractmethod
    def metrics(self, game: Game) -> tuple[str, ...]:
        """The names of the leaks that a duel measures, in the order of the columns of `Leaks.values`."""

    @abstractmethod
    def utility(self, board: Board, release: Path) -> Utility:
        """The raw utility u of a release, by the challenge's metric on the test part; reads canonical files only."""

    @abstractmethod
    def leaks(self, board: Board, result: Path) -> Leaks:
        """What an attack's canonical result takes from the release it met."""

    def told(self, board: Board, result: Path) -> Told | None:
        """What an attack's canonical result says about each scored record; None where that is not to be had.

        For the exposure of single records: a higher score means "this person gave more away".
        """
        return None

    @abstractmethod
    def reference_release(self, board: Board, folder: Path) -> None:
        """Writes a small release of the platform's own into `folder`, for rehearsing attacks on the public sample."""

    def reference_answers(self, board: Board, asked: Path, answers: Path) -> int:
        """What the defense of `reference_release` answers to a live question; returns the number of rows.

        Both files as in `Images`. Runs in an isolated child. Raises OutputProblem; LookupError where releases answer
        nothing.
        """
        raise LookupError("The releases of this game answer no questions.")

    # Before publishing

    @abstractmethod
    def look(self, trial: Trial) -> list[Finding]:
        """Whether this game can be played on a table that is dealt so: sizes, classes, folds, the blind control.

        A finding of level "error" keeps the challenge from being published. `scenarios.trials` has the usual ones.
        """

    @abstractmethod
    def look_at_sample(self, trial: Trial) -> list[Finding]:
        """Why entries could not be rehearsed on the public sample; nothing if they can."""

    @abstractmethod
    def anchors(self, table: pd.DataFrame, schema: Schema, deal: Deal, game: Game) -> Anchors:
        """Both ends of the utility scale (SCORING 2): a release that ignores the data, the best one unprotected.

        `deal` may be one of a part of the challenge's table, which is then `table`. Raises TableError.
        """

    def utility_metrics(self, schema: Schema) -> tuple[str, ...]:
        """The metrics of utility that an organiser may choose from, the default first."""
        return METRICS_OF[schema.task]

    def check_options(self, given: Any) -> None:
        """Raises ValueError with a sentence if a challenge of this scenario cannot have these options."""
        options.check(self.options, given)

    def reading(self, metric: str) -> Any:
        """The sentence for one of its metrics, to be filled with `rate`, `span`, `chance` and `metric`."""
        return self.readings.get(metric, _SECRET_READ)

    def control_reading(self, details: Sequence[Mapping[str, Any]]) -> str:
        """The result of a blind control on the scale of the field, such as an AUC, from each seed's `Leaks.detail`;
        empty where there is no such scale.
        """
        return ""

    def option(self, game: Game, name: str) -> Any:
        """The value of an option in this game: what the challenge says, or else the default."""
        default = next(option.default for option in self.options if option.name == name)
        return game.options.get(name, default)


def write_task(step: str, board: Board, folder: Path, files: Mapping[str, str], **more: Any) -> None:
    """Writes task.json of contract anomed/1. `files` maps the names of DESIGN 4 to paths below /input.

    `more` are entries that only steps of this kind have.
    """
    game = board.game
    task = {
        "contract": CONTRACT,
        "step": step,
        "scenario": game.scenario,
        "challenge": game.slug,
        "seed": board.seed,
        "target": game.schema.target,
        "columns": [column.to_json() for column in game.schema.shared],
        "limits": dict(game.limits),
        **more,
        "files": dict(files),
    }
    (folder / "task.json").write_text(json.dumps(task, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def link_folder(source: Path, target: Path) -> tuple[int, int]:
    """Gives `target` the regular files of `source` (hard links where the disk allows); returns their number and bytes.

    Raises OutputProblem for links and special files: they could point out of the folder or block a reader.
    """
    number = size = 0
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            raise OutputProblem("invalid", f"The folder “{source.name}” holds links or special files.")
        if entry.is_dir():
            inside = link_folder(Path(entry.path), target / entry.name)
            number, size = number + inside[0], size + inside[1]
        else:
            _link_or_copy(entry.path, target / entry.name)
            number, size = number + 1, size + entry.stat().st_size
    return number, size


def require(folder: Path | None) -> Path:
    """The folder that an earlier step left. FileNotFoundError, if there is none, is the platform's fault."""
    if folder is None or not folder.exists():
        raise FileNotFoundError("A step was prepared before the one it builds upon had left its result.")
    return folder


def _link_or_copy(source: str, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)
