"""Learns from other persons' pairs of recordings what stays the same in somebody, and points at the trace with that.

Linear discriminant analysis with every person of `aux` a class of two: differences are weighed by how little a feature
varies within persons, as for recognising faces. Then a trace counts for a person only as far as it fits them
better than all others who are asked about: popular traces fit everybody.
"""

import numpy as np
from anomed_task import Task, run

SHRINK = 0.5  # share of a covariance that its diagonal replaces: from few persons, correlations are rough guesses


def attack(task: Task) -> None:
    aux, background, release = task.table("aux"), task.table("background"), task.table("release")
    known = [name for name in background if name != "row"]
    traces = [name for name in release if name != "row"]
    earlier, later = portrait(aux[known].to_numpy(float)), portrait(aux[traces].to_numpy(float))
    asked, released = portrait(background[known].to_numpy(float)), portrait(release[traces].to_numpy(float))
    told = released.std(axis=0) > 1e-9  # features that the defense has levelled tell nothing
    # Each kind of recording on its own scale: what a defense does to the level and spread of all traces is undone.
    within = (scaled(earlier, earlier) - scaled(later, later))[:, told] / np.sqrt(2)
    white = whitening(within)
    differences = (scaled(asked, earlier)[:, None, told] - scaled(released, released)[None, :, told]) @ white
    fit = -(differences**2).sum(axis=2) / 2
    advantage = fit - np.logaddexp.reduce(fit, axis=0)
    best = advantage.argmax(axis=1)
    task.save("guesses", background[["row"]].assign(match=release["row"].to_numpy()[best]))


def portrait(traces: np.ndarray) -> np.ndarray:
    """Numbers that describe each trace: level, quantiles, jumps, the course of the day, the strength of its rhythms."""
    jumps = np.diff(traces, axis=1)
    described = [
        np.percentile(traces, [1, 10, 25, 50, 75, 90, 99], axis=1).T,
        np.log1p(np.abs(np.percentile(jumps, [1, 5, 25, 75, 95, 99], axis=1).T)),
        np.log1p(np.column_stack([traces.std(axis=1), jumps.std(axis=1), np.diff(jumps, axis=1).std(axis=1)])),
        np.log1p(np.abs(np.fft.rfft(traces - traces.mean(axis=1, keepdims=True)))[:, 1:9]),
        np.column_stack([part.mean(axis=1) for part in np.array_split(traces, 24, axis=1)]),
    ]
    quarters = [
        np.column_stack([part.std(axis=1), part.min(axis=1), part.max(axis=1), part.argmax(axis=1)])
        for part in np.array_split(traces, 4, axis=1)
    ]
    return np.hstack([*described, *quarters])


def scaled(features: np.ndarray, like: np.ndarray) -> np.ndarray:
    return (features - like.mean(axis=0)) / np.maximum(like.std(axis=0), 1e-9)


def whitening(differences: np.ndarray) -> np.ndarray:
    """A matrix that gives `differences` unit covariance."""
    covariance = differences.T @ differences / len(differences)
    covariance = (1 - SHRINK) * covariance + SHRINK * np.diag(np.diag(covariance))
    return np.linalg.cholesky(np.linalg.inv(covariance + 1e-3 * np.eye(len(covariance))))


if __name__ == "__main__":
    run(attack=attack)
