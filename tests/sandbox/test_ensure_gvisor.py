"""`deploy/ensure gvisor` on an engine of its own: it learns the runtime while it runs, and keeps its other settings."""

import json
import os
import subprocess
from pathlib import Path

import docker
import pytest

from tests.engines import SpareEngine

ENSURE = Path(__file__).parent.parent.parent / "deploy" / "ensure"


@pytest.fixture(scope="module")
def engine():
    config = {"labels": ["clinic=west"], "runtimes": {"other": {"path": "/usr/bin/runc"}}}
    with SpareEngine("walls-gvisor", 31, config=config) as engine:
        yield engine


def ensure(engine, **more):
    environment = {
        **os.environ,
        "ANOMED_ENGINE_SOCKET": str(engine.socket),
        "ANOMED_ENGINE_CONFIG": str(engine.folder / "daemon.json"),
        "ANOMED_ENGINE_PID": str(engine.folder / "pid"),
        **more,
    }
    environment.pop("ANOMED_DOCKER_HOST", None)
    return subprocess.run([ENSURE, "gvisor"], env=environment, capture_output=True, text=True, check=False)


def test_engine_learns_of_gvisor_and_keeps_the_rest(engine):
    before = docker.APIClient(base_url=engine.url)
    assert "runsc" not in before.info()["Runtimes"]
    first = ensure(engine)
    assert first.returncode == 0, first.stderr
    assert "runtime runsc now" in first.stdout

    info = before.info()
    assert {"runc", "other", "runsc"} <= info["Runtimes"].keys()
    assert info["Labels"] == ["clinic=west"]
    written = (engine.folder / "daemon.json").read_text()
    assert json.loads(written)["labels"] == ["clinic=west"]
    assert "--network=none" in json.loads(written)["runtimes"]["runsc"]["runtimeArgs"]

    again = ensure(engine)
    assert (again.returncode, again.stdout) == (0, "")
    assert (engine.folder / "daemon.json").read_text() == written
    before.close()


def test_configuration_that_is_broken_stays_as_it_is(engine):
    broken = engine.folder / "broken.json"
    for text in ("{", "[]", '{"runtimes": []}'):
        broken.write_text(text)
        refused = ensure(engine, ANOMED_ENGINE_CONFIG=str(broken), ANOMED_GVISOR_RUNTIME="gvisor-2")
        assert refused.returncode != 0
        assert "correct it first" in refused.stderr
        assert broken.read_text() == text
