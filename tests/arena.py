"""A whole arena of its own for a test: site, clusters, engine, database; all of it real, in one folder."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse battery"
ORGANISER = "olga@hospital.example.org"
LEASE_SECONDS = 6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Waits until `condition` gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.2)
    raise AssertionError(f"Not within {seconds} s: {what}")


@dataclass
class Arena:
    """Starts with `start`, ends with `stop`. People are made through the website or the management commands."""

    var: Path
    port: int = field(default_factory=free_port)
    registry_port: int = 0  # with a registry there, that `docker push` goes to
    server: "subprocess.Popen[bytes] | None" = None
    tokens: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  # of its environment, over those below

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{self.var / 'db.sqlite3'}",  # whatever the operator's own is
            "ANOMED_VAR": str(self.var),
            "ANOMED_SITE_URL": self.url,
            "ANOMED_RUN_SLOTS": "2",
            "ANOMED_LEASE_SECONDS": str(LEASE_SECONDS),
            "ANOMED_LOG_LEVEL": "INFO",
            "ANOMED_REGISTRY": f"localhost:{self.registry_port}" if self.registry_port else "off",
            "ANOMED_REGISTRY_PORT": str(self.registry_port),
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            **self.settings,
        }

    def manage(self, *arguments: str) -> str:
        """A management command's output."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        self.manage("migrate", "--verbosity", "0")
        self.manage("collectstatic", "--no-input", "--verbosity", "0")
        self.manage("createsuperuser", "--no-input", "--email", ORGANISER)
        self.serve()

    def serve(self) -> None:
        command = [sys.executable, "manage.py", "serve", "--port", str(self.port)]
        with (self.var / "serve.log").open("ab") as log:
            self.server = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers, seconds=60, what="the site answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(timeout=60)

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """Rows of the arena's own database."""
        with sqlite3.connect(self.var / "db.sqlite3", timeout=20) as database:
            return database.execute(sql, parameters).fetchall()

    def sign_up(self, email: str) -> httpx.Client:
        """A browser-like session of a new person."""
        session = httpx.Client(base_url=self.url, follow_redirects=True, timeout=60, headers={"Origin": self.url})
        session.get("/accounts/signup/")
        form = {"email": email, "password1": PASSWORD, "password2": PASSWORD}
        answer = session.post("/accounts/signup/", data={**form, "csrfmiddlewaretoken": session.cookies["csrftoken"]})
        assert answer.status_code == 200, answer.text
        return session

    def token(self, email: str) -> str:
        """A person's token, asked for once: signing in is limited per minute."""
        if email not in self.tokens:
            answer = httpx.post(f"{self.url}/api/v1/token", json={"email": email, "password": PASSWORD}, timeout=30)
            assert answer.status_code == 200, answer.text
            self.tokens[email] = str(answer.json()["token"])
        return self.tokens[email]

    def anomed(self, email: str, *arguments: str, status: int = 0) -> str:
        """The participants' command line, as that person."""
        environment = {**os.environ, "ANOMED_SERVER": self.url, "ANOMED_TOKEN": self.token(email)}
        done = subprocess.run(
            [sys.executable, "-m", "anomed", *arguments], env=environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == status, f"status {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def api(self, email: str, path: str) -> Any:
        headers = {"Authorization": f"Token {self.token(email)}"}
        return httpx.get(f"{self.url}/api/v1/{path}", headers=headers, timeout=30).raise_for_status().json()

    def containers(self) -> list[str]:
        """What this arena has on the engine, running or not."""
        label = f"label=anomed.installation={(self.var / 'installation').read_text().strip()}"
        listing = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True)
        return listing.stdout.split()

    def workers(self) -> list[int]:
        """The processes of the `runs` cluster."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            ours = f"ANOMED_VAR={self.var}".encode() in environment and b"Q_CLUSTER_NAME=runs" in environment
            if ours and b"qcluster" in command:
                found.append(int(folder.name))
        return found


def patients(rows: int = 700) -> pd.DataFrame:
    """Invented patients with an id, of whom age and glucose tell something about diabetes."""
    random = np.random.default_rng(11)
    age = random.integers(20, 81, rows)
    glucose = np.round(random.normal(100, 18, rows), 1)
    risk = (glucose - 100) / 15 + (age - 50) / 20 + random.normal(0, 1, rows)
    return pd.DataFrame(
        {
            "patient": [f"canary-{number:05d}" for number in random.permutation(rows)],
            "age": age,
            "sex": random.choice(["female", "male"], rows),
            "glucose": glucose,
            "diabetes": np.where(risk > 0, "yes", "no"),
        }
    )


DEVELOPMENT = '[[phases]]\nkind = "development"\nseeds = 1\nfolds = 2\n'


def write_challenge(folder: Path, table: Any, *, phases: str = DEVELOPMENT, **changes: Any) -> Path:
    """A challenge folder for `challenge_import`, small and quick."""
    folder.mkdir(parents=True)
    table.to_csv(folder / "data.csv", index=False)
    limits = {"seconds": 60, "memory_mb": 1024, "cpus": 1, "gpus": 0, "output_mb": 64, "pids": 256}
    sections: dict[str, Any] = {
        "slug": "clinic",
        "title": "Clinic",
        "summary": "Who was in the training data?",
        "scenario": "model-membership",
        "time_zone": "Europe/Berlin",
        "utility_metric": "auroc",
        "limits": limits,
        "quotas": {"daily": 50, "total": 100, "failures_daily": 100},
        "data": {"file": "data.csv", "target": "diabetes", "patient": "patient"},
        **changes,
    }
    (folder / "challenge.toml").write_text(f"{_toml(sections)}\n{phases}")
    return folder


def _toml(sections: dict[str, Any]) -> str:
    plain = [f"{key} = {json.dumps(value)}" for key, value in sections.items() if not isinstance(value, dict)]
    tables = [
        f"\n[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in sections.items()
        if isinstance(table, dict)
    ]
    return "\n".join(plain + tables) + "\n"


def build(folder: Path, name: str, program: str, base: str = "anomed/base") -> str:
    """An image on the engine whose only layer above `base` is a Python program."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(program)
    lines: Sequence[str] = (f"FROM {base}", "COPY main.py /app/main.py", 'ENTRYPOINT ["python", "/app/main.py"]', "")
    (folder / "Dockerfile").write_text("\n".join(lines))
    import docker  # only here: most tests of the arena build nothing

    engine = docker.from_env()
    engine.images.build(path=str(folder), tag=name, rm=True)
    return name
