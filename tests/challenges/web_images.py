"""Web images without containers: what a gateway does by a plan, with plain functions in place of HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
