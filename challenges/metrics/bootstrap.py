"""Measures over 1000 stratified resamples at once: where the intervals on the boards come from (SCORING 3).

A resample is written as how often it holds each record: `counts[r, i]`. The functions sort once and then work on whole
matrices, a block of resamples at a time, so that they need little memory.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from challenges.metrics.arrays import as_numbers, as_share
from challenges.metrics.utility import SMALLEST_PROBABILITY
from challenges.schema import Schema

Floats = NDArray[np.float64]
Counts = NDArray[np.int16]

RESAMPLES: Final = 1000
# Numbers in a block: a few matrices of this size are held at a time. They fit into the cache, which makes it five times
# faster than blocks of half a million.
_BLOCK: Final = 100_000
# Records drawn at a time: 100 MB of numbers. All resamples of a large test part at once would take gigabytes.
_DRAWN: Final = 4_000_000


def draw(key: bytes, strata: ArrayLike) -> Counts:
    """How often each record is in each of RESAMPLES resamples, [RESAMPLES, n]; as many of each stratum as there are.

    `strata` [n] numbers the stratum of each record. The same key and strata give the same counts on every machine.
    """
    groups = np.asarray(strata)
    counts = np.zeros((RESAMPLES, len(groups)), dtype=np.int16)
    for stratum in np.unique(groups):
        inside = np.flatnonzero(groups == stratum)
        step = max(1, _DRAWN // len(inside))
        for start in range(0, RESAMPLES, step):
            name = f"\x1fresample\x1f{stratum}" + (f"\x1f{start}" if start else "")
            many = min(step, RESAMPLES - start)
            counts[start : start + many, inside] = _drawn(key + name.encode(), many, len(inside))
    return counts


def auc(is_member: ArrayLike, scores: ArrayLike, counts: Counts) -> Floats:
    """`membership.roc_auc` over each resample: [RESAMPLES]."""
    member, values = np.asarray(is_member, dtype=bool), as_numbers(scores, "The scores")
    result = np.empty(len(counts))
    for rows, true, false in _groups(member, values, counts):
        above = _running(true) - true  # members that score higher
        won = np.einsum("rg,rg->r", above * 2.0 + true, false.astype(np.float64)) / 2
        result[rows] = won / (true.sum(axis=1) * false.sum(axis=1, dtype=np.float64))
    return result


def tpr(is_member: ArrayLike, scores: ArrayLike, counts: Counts, alpha: float) -> Floats:
    """`membership.tpr_at_fpr` over each resample, with the same step convention: [RESAMPLES]."""
    member, values = np.asarray(is_member, dtype=bool), as_numbers(scores, "The scores")
    share = as_share(alpha, "The false-positive rate")
    result = np.empty(len(counts))
    for rows, true, false in _groups(member, values, counts):
        hits, alarms = _running(true), _running(false)
        allowed = np.floor(share * alarms[:, -1] + 1e-9)
        reached = (alarms <= allowed[:, None]).sum(axis=1)  # thresholds that keep within it: they come first
        at = hits[np.arange(len(hits)), np.maximum(reached, 1) - 1]
        result[rows] = np.where(reached > 0, at, 0) / hits[:, -1]
    return result


def rate(hits: ArrayLike, counts: Counts) -> Floats:
    """The mean of `hits` [n] (true and false, or any numbers) over each resample: [RESAMPLES]."""
    return mean(np.asarray(hits, dtype=np.float64), counts)


def mean(values: Floats, counts: Counts) -> Floats:
    """The weighted mean of `values` [n] or [n, k] over each resample: [RESAMPLES] or [RESAMPLES, k]."""
    result = np.empty((len(counts), *values.shape[1:]))
    for rows in _blocks(counts):
        weights = counts[rows].astype(np.float64)
        total = weights.sum(axis=1)
        result[rows] = (weights @ values) / (total if values.ndim == 1 else total[:, None])
    return result


def metric(name: str, schema: Schema, truth: ArrayLike, answers: ArrayLike, counts: Counts) -> Floats:
    """`utility.score` over each resample: [RESAMPLES]. Draw `counts` stratified by class, so that none is missing."""
    true, given = np.asarray(truth), np.asarray(answers, dtype=np.float64)
    given = given[:, None] if given.ndim == 1 else given
    if schema.labels:
        codes = np.array([schema.labels.index(label) for label in true.tolist()], dtype=np.int64)
        return _CLASSIFICATION[name](codes, given, counts)
    return _REGRESSION[name](true.astype(np.float64), given[:, 0], counts)


def pack(replicates: ArrayLike) -> bytes:
    """Replicates as they are stored: the bytes of an npy file of single precision."""
    file = io.BytesIO()
    np.save(file, np.asarray(replicates, dtype=np.float32), allow_pickle=False)
    return file.getvalue()


def unpack(stored: bytes) -> Floats:
    """Stored replicates as an array."""
    array: NDArray[Any] = np.load(io.BytesIO(stored), allow_pickle=False)
    return array.astype(np.float64)


def _drawn(key: bytes, resamples: int, size: int) -> NDArray[np.int64]:
    """How often each of `size` records is in each of so many resamples: [resamples, size]."""
    stream = hashlib.shake_256(key).digest(4 * resamples * size)
    # 32 bits scaled to the size: no record is preferred by more than size / 2^32
    drawn = (np.frombuffer(stream, dtype="<u4").astype(np.uint64) * np.uint64(size)) >> np.uint64(32)
    cells = drawn.reshape(resamples, size).astype(np.int64) + size * np.arange(resamples)[:, None]
    return np.bincount(cells.ravel(), minlength=resamples * size).reshape(resamples, size)


def _auroc(truth: NDArray[np.int64], answers: Floats, counts: Counts) -> Floats:
    if answers.shape[1] == 2:
        return auc(truth == 1, answers[:, 1], counts)
    each = [auc(truth == code, answers[:, code], counts) for code in np.unique(truth)]
    return np.asarray(np.mean(each, axis=0))


def _balanced_accuracy(truth: NDArray[np.int64], answers: Floats, counts: Counts) -> Floats:
    right = (answers.argmax(axis=1) == truth).astype(np.float64)
    each = [mean(right[truth == code], counts[:, truth == code]) for code in np.unique(truth)]
    return np.asarray(np.mean(each, axis=0))


def _log_loss(truth: NDArray[np.int64], answers: Floats, counts: Counts) -> Floats:
    given = answers[np.arange(len(truth)), truth]
    return mean(-np.log(np.clip(given, SMALLEST_PROBABILITY, 1)), counts)


def _r2(truth: Floats, answers: Floats, counts: Counts) -> Floats:
    centred = truth - truth.mean()  # the same variance, computed without loss of digits
    sums = mean(np.column_stack([(truth - answers) ** 2, centred, centred**2]), counts)
    spread = sums[:, 2] - sums[:, 1] ** 2
    # a resample of one value over and over explains nothing
    return 1 - np.divide(sums[:, 0], spread, out=np.ones_like(spread), where=spread > 1e-12 * centred.var())


def _mae(truth: Floats, answers: Floats, counts: Counts) -> Floats:
    return mean(np.abs(truth - answers), counts)


_CLASSIFICATION: Final[dict[str, Callable[[NDArray[np.int64], Floats, Counts], Floats]]] = {
    "auroc": _auroc,
    "balanced_accuracy": _balanced_accuracy,
    "log_loss": _log_loss,
}
_REGRESSION: Final[dict[str, Callable[[Floats, Floats, Counts], Floats]]] = {"r2": _r2, "mae": _mae}


def _running(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Running sums of each row, in 32 bits: enough for any table, and ten times faster than numpy's default."""
    return np.cumsum(counts, axis=1, dtype=np.int32)


def _blocks(counts: Counts) -> Iterator[slice]:
    """Stretches of resamples that are worked on at a time."""
    step = max(1, math.floor(_BLOCK / max(1, counts.shape[1])))
    for start in range(0, len(counts), step):
        yield slice(start, start + step)


def _groups(
    member: NDArray[np.bool_], values: NDArray[Any], counts: Counts
) -> Iterator[tuple[slice, NDArray[np.int32], NDArray[np.int32]]]:
    """Block by block: members and non-members [block, groups] at each score, highest first; ties are one group."""
    if member.ndim != 1 or member.shape != values.shape or counts.shape[1:] != member.shape:
        raise ValueError("Membership, scores and counts must be about the same records.")
    if member.all() or not member.any():
        raise ValueError("There must be at least one member and one non-member.")
    order = np.argsort(values, kind="stable")[::-1]
    ranked = values[order]
    starts = np.concatenate([[0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1])
    inside = member[order].astype(np.int32)
    for rows in _blocks(counts):
        block = counts[rows][:, order].astype(np.int32)
        true = block * inside
        false = block - true
        if len(starts) < len(ranked):
            true, false = np.add.reduceat(true, starts, axis=1), np.add.reduceat(false, starts, axis=1)
        yield rows, true, false
