"""Web images without containers: what a gateway does by a plan, with plain functions in place of HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from challenges.scenarios import registry
from challenges.scenarios.base import Board, Images

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]
# What an image does at a call: it gets what it may call in turn, and its body; and returns its answer's body.
Route = Callable[["Gateway", bytes], bytes]


def packed(**arrays: Any) -> bytes:
    """An npz as the published packages send it."""
    body = io.BytesIO()
    np.savez_compressed(body, **arrays)
    return body.getvalue()


def unpacked(body: bytes) -> Arrays:
    with np.load(io.BytesIO(body), allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


class Gateway:
    """Plays one exchange between a plan and an image."""

    def __init__(self, inputs: Path, outputs: Path) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.plan: dict[str, Any] = json.loads((inputs / "plan.json").read_text(encoding="utf-8"))
        self.routes: dict[str, int] = {}
        self.queries = 0

    def run(self, image: Mapping[str, Route]) -> None:
        """Makes the plan's calls in order, then leaves the account of them."""
        for call in self.plan["calls"]:
            verb = "post" if "post" in call else "get"
            path = call[verb].partition("?")[0]
            body = (self.inputs / call["body"]).read_bytes() if "body" in call else call[verb].encode()
            answer = image[path](self, body)
            if "save" in call:
                assert len(answer) <= call["limit"]
                self._keep(call["save"], answer)
            self.routes[f"{verb.upper()} {path}"] = 201 if verb == "post" else 200
        account = {"ok": True, "problem": "", "queries": self.queries, "live": 0, "routes": self.routes}
        (self.outputs / "exchange.json").write_text(json.dumps(account), encoding="utf-8")

    def get(self, route: str, split: str = "") -> bytes:
        """What the image gets of the challenge."""
        served = self.plan["serve"][route]
        return (self.inputs / (served["files"][split] if split else served["file"])).read_bytes()

    def post(self, route: str, body: bytes, split: str = "") -> None:
        """What the image posts to the challenge."""
        record = self.plan["record"][route]
        assert len(body) <= record["limit"]
        kept = record["to"][split] if split else record["to"]
        if kept is not None:
            self._keep(kept, body)

    def predict(self, x: NDArray[Any]) -> Arrays:
        """The attacked model's answers, found by the rows' bytes."""
        target = self.plan["target"]["/predict"]
        self.queries += len(x)
        assert self.queries <= target["budget"]
        held = unpacked((self.inputs / target["answers"]).read_bytes())
        known = {row.tobytes(): at for at, row in reversed(list(enumerate(held["X"].astype(np.float32))))}
        rows = [known[row.tobytes()] for row in x.astype(np.float32)]
        return {name: values[rows] for name, values in held.items() if name != "X"}

    def target(self, route: str) -> bytes:
        """What the attacked anonymizer gives away."""
        return (self.inputs / self.plan["target"][route]["file"]).read_bytes()

    def _keep(self, name: str, body: bytes) -> None:
        path = self.outputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists()
        path.write_bytes(body)


class Anonymizer:
    """A small model: the share of each class among the nearest by age, or its commonest class."""

    def __init__(self, *, labels: bool) -> None:
        self.labels = labels

    def fit(self, gateway: Gateway, _body: bytes) -> bytes:
        held = unpacked(gateway.get("/data/anonymizer/training"))
        (gateway.outputs / "model").mkdir()
        np.savez(gateway.outputs / "model" / "nearest.npz", age=held["X"][:, 0], y=held["y"])
        return b""

    def predict(self, gateway: Gateway, body: bytes) -> bytes:
        fitted = gateway.outputs / "model"  # in the exchange of its fit
        with np.load((fitted if fitted.exists() else gateway.inputs / "model") / "nearest.npz") as model:
            shares = answers_by_age(unpacked(body)["X"][:, 0], model["age"], model["y"])
        return packed(prediction=shares.argmax(axis=1)) if self.labels else packed(prediction=shares)

    @property
    def routes(self) -> dict[str, Route]:
        return {"/fit": self.fit, "/predict": self.predict}


def answers_by_age(asked: Floats, age: Floats, y: NDArray[Any]) -> Floats:
    """[rows, classes]: of the people within three years of age, the share in each class; class by number."""
    near = (np.abs(asked[:, None] - age[None, :]) <= 3).astype(np.float64)
    shares = np.stack([near @ (y == number) + 0.1 for number in range(int(y.max()) + 1)], axis=1)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def exchanged(images: Images, step: str, board: Board, folder: Path, routes: dict[str, Route]) -> dict[str, Any]:
    """One step of a web image; its result is in folder/result."""
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    images.write_inputs(step, board, folder / "in")
    Gateway(folder / "in", folder / "out").run(routes)
    return images.read_outputs(step, board, folder / "out", folder / "result")


def released(board: Board, folder: Path, *, labels: bool = False) -> Board:
    """The board with the release of the small anonymizer."""
    images = registry.get("model-membership").images("web/1")
    image = Anonymizer(labels=labels)
    facts = exchanged(images, "fit", board, folder / "fit", image.routes)
    assert facts["files"] == 1
    fitted = replace(board, previous=folder / "fit" / "result")
    facts = exchanged(images, "predict", fitted, folder / "predict", image.routes)
    assert facts["rows"] == len(board.deal.queries)
    return replace(board, release=folder / "predict" / "result")
