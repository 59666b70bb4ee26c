"""The registry of the tests: the real program, at a port of its own, with what a test pushes to it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from submissions.models import Team
from submissions.registry import access, conf, names
from submissions.registry.keeper import Keeper
from tests.arena import free_port, wait_for
from tests.submissions.registries import Pusher


@pytest.fixture
def registry(settings: Any, tmp_path: Path, teams: dict[str, Team]) -> Iterator[Keeper]:
    """A running registry, of which nothing is left afterwards."""
    assert shutil.which(conf.PROGRAM), "these tests need a registry: apt-get install docker-registry"
    settings.PRIVATE_ROOT = tmp_path / "private"
    settings.PRIVATE_ROOT.mkdir()
    port = free_port()
    settings.REGISTRY = {"address": f"localhost:{port}", "port": port}
    with Keeper() as keeper:
        wait_for(answers, seconds=30, what="the registry answers")
        yield keeper


def answers() -> bool:
    try:
        return httpx.get(f"{conf.url()}/v2/", timeout=2).status_code == 401
    except httpx.HTTPError:
        return False


@pytest.fixture
def pusher(registry: Keeper, teams: dict[str, Team]) -> Callable[..., Pusher]:
    """Somebody with a token for that team's repository, as the site gives it: `pusher("ada", "mine")`."""

    def make(who: str, name: str) -> Pusher:
        team = teams[who]
        scope = f"repository:{names.prefix(team)}/{name}:pull,push"
        grants = access.granted(user=team.members.get(), scopes=[scope])
        return Pusher(access.token(subject=str(team.members.get().pk), access=grants))

    return make
