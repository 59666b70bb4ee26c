"""Small web servers that play a participant's image: polite ones, and some that try more than they may."""

import subprocess
from pathlib import Path

import docker

from sandbox.models import Image
from tests.arena import build

SERVER = """
import http.server, io, json, os, pathlib, socket, subprocess, time, urllib.request
import numpy as np

CHALLENGE = "http://" + os.environ["CHALLENGE_HOST"]
TARGET = "http://" + os.environ["ATTACK_TARGET_HOST"]
KEPT = pathlib.Path("/persistent_data/model.bin")

def fetch(url, body=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()

def pack(**arrays):
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()

def fit():
    KEPT.write_bytes(fetch(CHALLENGE + "/data/training")[1])

def predict(rows):
    return {"prediction": (rows[:, 0] > 0.5).astype(np.int64)}

def evaluate():
    return fetch(CHALLENGE + "/utility?data_split=validation", b"scores")

EXTRA

class Handler(http.server.BaseHTTPRequestHandler):
    def say(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.say(200, b'{"message": "alive"}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/fit":
            self.say(fit() or 201, b"{}")
        elif self.path.startswith("/predict"):
            if KEPT.exists():
                self.say(201, pack(**predict(np.load(io.BytesIO(body))["X"])))
            else:
                self.say(503, b"not fitted")
        else:
            status, answer = evaluate()
            self.say(status, answer)

print("serving as", os.getuid(), flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 80), Handler).serve_forever()
"""


_built: list[str] = []  # image ids


def web_image(folder: Path, name: str, extra: str = "", *, user: str = "") -> Image:
    """An image on the engine that serves as above, but for what the program `extra` does otherwise."""
    name = build(folder, f"anomed-test/web-{name}", SERVER.replace("EXTRA", extra))
    if user:
        with (folder / "Dockerfile").open("a") as file:
            file.write(f"USER {user}\n")
        docker.from_env().images.build(path=str(folder), tag=name, rm=True)
    image = known(name, config={"user": user or "65534:65534"})
    _built.append(image.image_id)
    return image


def remove_images() -> None:
    """Takes all that were built here off the engine."""
    command = ["docker", "image", "rm", "--force", *dict.fromkeys(_built)]
    if _built:
        subprocess.run(command, check=False, capture_output=True)
    _built.clear()


def known(name: str, **fields: object) -> Image:
    """The row of an image that the engine has already."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    image_id = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    image, _created = Image.objects.get_or_create(image_id=image_id, defaults={"name": name, **fields})
    return image
