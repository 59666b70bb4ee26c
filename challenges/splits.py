"""The secret deal of a table into aux, core, candidates and test, and who among the candidates is in training.

Everything here follows from HMAC-SHA256 and SHAKE-256 under the phase's secret: no random state, the same answer on
every machine, and nothing that could be guessed from public names (SCORING 1).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from challenges.schema import Schema, TableError

Positions = NDArray[np.int64]
Flags = NDArray[np.bool_]

_SEPARATOR: Final = "\x1f"
# NHANES 2017-18, the demo's table, is the pattern that default sizes are scaled from (SCORING 1).
_PATTERN_ROWS, _PATTERN_AUX, _PATTERN_CORE, _PATTERN_CANDIDATES = 5018, 1000, 500, 2400
# Below this no part holds enough records to train or test anything.
MINIMUM_PATIENTS: Final = 40


def member_coin(secret: bytes, *parts: str) -> bool:
    """Whether a record is in training: the lowest bit of the first byte of HMAC-SHA256 over the joined parts.

    The parts are challenge, phase, scope, seed and record (SCORING 1).
    """
    return bool(_hmac(secret, *parts)[0] & 1)


def derive(secret: bytes, *parts: str) -> bytes:
    """A 32-byte key of its own for one purpose, named by `parts`."""
    return _hmac(secret, "key", *parts)


def tokens(key: bytes, n: int) -> list[str]:
    """`n` distinct row names, `r` and 16 hexadecimal digits each, that tell nothing to whoever lacks the key."""
    for attempt in range(256):
        text = _stream(key, f"tokens{attempt}", 8 * n).hex()
        names = ["r" + text[start : start + 16] for start in range(0, 16 * n, 16)]
        if len(set(names)) == n:
            return names
    raise TableError("Row names could not be drawn.")  # 256 collisions in a row: the key stream is broken


def shuffle(key: bytes, n: int) -> Positions:
    """A permutation of 0..n-1 that tells nothing to whoever lacks the key."""
    draws = np.frombuffer(_stream(key, "shuffle", 8 * n), dtype="<u8")
    return np.argsort(draws, kind="stable").astype(np.int64)


@dataclass(frozen=True)
class Sizes:
    """How many patients go into aux, core and candidates; the rest is the test part."""

    aux: int
    core: int
    candidates: int

    @classmethod
    def default(cls, rows: int) -> Sizes:
        """NHANES' proportions: about 20 % aux, 10 % core, 48 % candidates, 22 % test."""
        return cls(
            aux=rows * _PATTERN_AUX // _PATTERN_ROWS,
            core=rows * _PATTERN_CORE // _PATTERN_ROWS,
            candidates=rows * _PATTERN_CANDIDATES // _PATTERN_ROWS,
        )


@dataclass(frozen=True, eq=False)
class Deal:
    """Row positions of the four parts (ascending), and what is decided for each candidate, aligned to `candidates`.

    `fold` numbers the scored candidates' cross-fitting units from 0; known candidates are not scored and hold -1.
    """

    aux: Positions
    core: Positions
    candidates: Positions
    test: Positions
    member: Flags
    known: Flags
    fold: Positions

    @property
    def train(self) -> Positions:
        """What a defense trains on: core and the candidates whose coin is 1, ascending."""
        return np.sort(np.concatenate([self.core, self.candidates[self.member]]))

    @property
    def queries(self) -> Positions:
        """What a model is asked about: aux, candidates and test, ascending. Row i of a release answers the i-th."""
        return np.sort(np.concatenate([self.aux, self.candidates, self.test]))

    @property
    def scored(self) -> Positions:
        """The candidates that attacks are scored on, ascending."""
        return self.candidates[~self.known]

    @property
    def scored_member(self) -> Flags:
        """The truth about `scored`."""
        return self.member[~self.known]

    @property
    def scored_fold(self) -> Positions:
        """The cross-fitting unit of each of `scored`."""
        return self.fold[~self.known]

    @property
    def revealed(self) -> Positions:
        """The candidates whose membership every attack is told, ascending."""
        return self.candidates[self.known]

    @property
    def revealed_member(self) -> Flags:
        """The truth about `revealed`."""
        return self.member[self.known]


def parts(
    table: pd.DataFrame, schema: Schema, *, secret: bytes, challenge: str, phase: str, sizes: Sizes
) -> tuple[Positions, Positions, Positions, Positions]:
    """Row positions of aux, core, candidates and test, each ascending; no patient is in two of them.

    They depend on the phase's secret only, so that all scopes and seeds of a phase share them.
    """
    patient, names = _patients(table, schema)
    wanted = (sizes.aux, sizes.core, sizes.candidates)
    if len(names) < MINIMUM_PATIENTS:
        raise TableError(f"The table has {len(names)} patients; at least {MINIMUM_PATIENTS} are needed.")
    if min(wanted) < 1 or sum(wanted) >= len(names):
        raise TableError(
            f"The parts need {sum(wanted)} patients and some more for the test, but the table has {len(names)}. "
            "Each part needs at least one. Choose smaller parts."
        )
    place = np.empty(len(names), dtype=np.int64)
    place[shuffle(derive(secret, "parts", challenge, phase), len(names))] = np.arange(len(names))
    part = np.searchsorted(np.cumsum(wanted), place, side="right")[patient]
    aux, core, candidates, test = (np.flatnonzero(part == number) for number in range(4))
    return aux, core, candidates, test


def deal(
    table: pd.DataFrame,
    schema: Schema,
    *,
    secret: bytes,
    challenge: str,
    phase: str,
    scope: str,
    seed: int,
    sizes: Sizes,
    revealed: float = 0.2,
    folds: int = 1,
) -> Deal:
    """The deal of one evaluation: who is a member, who is known, and which fold each scored candidate is in.

    All three are drawn by patient. Raises TableError if the table is too small for the sizes, the share or the folds.
    """
    if not 0 <= revealed < 1:
        raise TableError("The revealed share must be at least 0 and less than 1.")
    if folds < 1:
        raise TableError("At least one fold is needed.")
    aux, core, candidates, test = parts(table, schema, secret=secret, challenge=challenge, phase=phase, sizes=sizes)
    patient, names = _patients(table, schema)
    dealt, unit = np.unique(patient[candidates], return_inverse=True)
    scope_parts = (challenge, phase, scope, str(seed))
    coins = np.array([member_coin(secret, *scope_parts, names[index]) for index in dealt], dtype=np.bool_)
    order = shuffle(derive(secret, "known", *scope_parts), len(dealt))
    told = round(revealed * len(dealt))
    if len(dealt) - told < 2 * folds:
        raise TableError("Too few candidates are left to be scored. Use a bigger table, or reveal fewer of them.")
    fold = np.full(len(dealt), -1, dtype=np.int64)
    fold[order[told:]] = np.arange(len(dealt) - told) % folds
    return Deal(aux, core, candidates, test, member=coins[unit], known=fold[unit] < 0, fold=fold[unit])


def dealt_again(deal: Deal, table: pd.DataFrame, schema: Schema, *, key: bytes) -> Deal:
    """The deal with fresh coins for the scored candidates, by patient: who is a member is independent of `deal`.

    Parts and folds stay, and so does all that is told of the known candidates. Each `key` makes another one.
    """
    patient, names = _patients(table, schema)
    coins = np.frombuffer(_stream(key, "coins", len(names)), dtype=np.uint8) & 1 == 1
    return replace(deal, member=np.where(deal.known, deal.member, coins[patient[deal.candidates]]))


def _patients(table: pd.DataFrame, schema: Schema) -> tuple[Positions, list[str]]:
    """For each row the number of its patient, and each patient's name: the id, or the position where there is none."""
    name = schema.patient_id
    if name is None or name not in table.columns:
        return np.arange(len(table), dtype=np.int64), [str(position) for position in range(len(table))]
    codes, names = pd.factorize(table[name])
    return codes.astype(np.int64), [str(patient) for patient in names]


def _hmac(secret: bytes, *parts: str) -> bytes:
    return hmac.digest(secret, _SEPARATOR.join(parts).encode(), "sha256")


def _stream(key: bytes, purpose: str, length: int) -> bytes:
    return hashlib.shake_256(hmac.digest(key, purpose.encode(), "sha256")).digest(length)
