"""What isolated children do with the files of an exchange in tests: they have no Django."""

import json
from pathlib import Path

import numpy as np

from sandbox.reasons import Reason, Rejected


def keep_all(collected: str, result: str) -> dict[str, object]:
    """The gateway's report; the collected files themselves become the result."""
    files = [path for path in Path(collected).rglob("*") if path.is_file()]
    for path in files:
        (Path(result) / path.name).write_bytes(path.read_bytes())
    return json.loads((Path(collected) / "exchange.json").read_text())


def read_told(told: str) -> dict[str, object]:
    """The account of an exchange that failed."""
    try:
        return json.loads(Path(told).read_text())
    except ValueError as error:
        raise Rejected(Reason.OUTPUT_INVALID, "There is no account.") from error


def write_question(asked: str, folder: str) -> dict[str, object]:
    rows = np.load(asked)["X"]
    if (rows < 0).any():
        raise Rejected(Reason.OUTPUT_INVALID, "Nobody is younger than that.")
    (Path(folder) / "rows.json").write_text(json.dumps(rows.tolist()))
    return {}


def read_answer(collected: str, answer: str) -> dict[str, object]:
    said = json.loads((Path(collected) / "said.json").read_text())
    np.savez(answer, prediction=np.array([int(sum(row)) for row in said]))
    return {}


def write_question_by_web(asked: str, folder: str) -> dict[str, object]:
    calls = [{"post": "/predict", "body": "queries.npz", "save": "prediction", "limit": 100000}]
    plan = {"contract": "web/1", "seconds": 20, "calls": calls}
    (Path(folder) / "plan.json").write_text(json.dumps(plan))
    np.savez(Path(folder) / "queries.npz", X=np.load(asked)["X"])
    (Path(folder) / "model").mkdir()
    (Path(folder) / "model" / "model.bin").write_bytes(b"patients")
    return {}


def read_answer_by_web(collected: str, answer: str) -> dict[str, object]:
    with (Path(collected) / "prediction").open("rb") as file:
        np.savez(answer, prediction=np.load(file)["prediction"])
    return {}


def answer_at_once(asked: str, answer: str) -> dict[str, object]:
    rows = np.load(asked)["X"]
    if (rows < 0).any():
        raise Rejected(Reason.OUTPUT_INVALID, "Nobody is younger than that.")
    np.savez(answer, prediction=rows.sum(axis=1).astype(np.int64))
    return {}
