"""`docker login` and `docker push` from a participant's machine: real client, registry, site, workers and engine."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.arena import ORGANISER, PASSWORD, Arena, free_port, patients, wait_for, write_challenge
from tests.sandbox.image_builder import busybox_layer

# A kit's 600 MB are compressed by the engine before they travel: half a minute, more on a busy machine.
pytestmark = [pytest.mark.xdist_group("arena"), pytest.mark.timeout(600)]
CLIENTS = [path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if Path(path).exists()]


@dataclass
class Desk:
    """A participant's machine: a Docker client with a memory of its own for who signed in."""

    arena: Arena
    email: str
    folder: Path
    client: str = CLIENTS[0]

    def docker(self, *arguments: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "DOCKER_CONFIG": str(self.folder)}
        return subprocess.run(
            [self.client, *arguments], input=typed, env=environment, capture_output=True, text=True, timeout=500
        )

    def login(self, secret: str) -> "subprocess.CompletedProcess[str]":
        return self.docker("login", "-u", self.email, "--password-stdin", self.registry, typed=secret)

    @property
    def registry(self) -> str:
        return f"localhost:{self.arena.registry_port}"

    def push(self, image: str, name: str) -> str:
        """Pushes an image of this machine under that name; what the client says in the end."""
        full = f"{self.registry}/{name}"
        assert self.docker("tag", image, full).returncode == 0
        try:
            done = self.docker("push", full)
        finally:
            self.docker("rmi", full)
        return done.stdout + done.stderr

    def entry(self, name: str) -> "dict[str, str] | None":
        """An own entry by its name."""
        found = self.arena.api(self.email, "challenges/clinic/submissions")["results"]
        return next((entry for entry in found if entry["name"] == name), None)

    def wait_for(self, name: str, *states: str) -> None:
        wait_for(
            lambda: (entry := self.entry(name)) and entry["state"] in states,
            seconds=240,
            what=f"{name} is {' or '.join(states)}",
        )


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The published challenge `clinic`, and a registry."""
    running = Arena(var=tmp_path_factory.mktemp("arena"), registry_port=free_port())
    running.start()
    try:
        folder = write_challenge(running.var / "clinic", patients(800))
        running.manage("challenge_import", str(folder), "--organiser", ORGANISER, "--publish")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def tiny() -> Iterator[str]:
    """An image of 2 MB with nothing but a shell, which does nothing."""
    name = "anomed-test/registry-tiny"
    change = ["--change", 'ENTRYPOINT ["/bin/sh", "-c", "exit 3"]']
    subprocess.run(["docker", "import", *change, "-", name], input=busybox_layer(), check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rmi", "--force", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def ada(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return newcomer(arena, "ada", tmp_path_factory.mktemp("ada"))


@pytest.fixture(scope="module")
def ben(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return newcomer(arena, "ben", tmp_path_factory.mktemp("ben"))


def newcomer(arena: Arena, who: str, folder: Path) -> Desk:
    """Somebody who has joined and signed in with their token."""
    email = f"{who}@uni.example.org"
    arena.sign_up(email).close()
    arena.anomed(email, "join", "clinic", "--team", f"Team {who.title()}", "--accept-rules")
    desk = Desk(arena, email, folder)
    done = desk.login(arena.token(email))
    assert "Login Succeeded" in done.stdout + done.stderr, done.stderr
    return desk


def prefix(desk: Desk) -> str:
    """CHALLENGE/TEAM as the page *Enter an image* shows it."""
    session = httpx.Client(base_url=desk.arena.url, timeout=60, headers={"Origin": desk.arena.url})
    session.get("/accounts/login/")
    form = {"login": desk.email, "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    session.post("/accounts/login/", data=form)
    page = session.get("/challenges/clinic/submit/").text
    assert f"docker login -u {desk.email} {desk.registry}" in page
    shown = re.search(rf"docker push {desk.registry}/(\S+)/NAME:defense", page)
    assert shown, page
    return shown[1]


def test_a_kit_is_pushed_rehearsed_and_scored(arena: Arena, ada: Desk) -> None:
    mine = prefix(ada)
    said = ada.push("anomed/random", f"{mine}/my-attack:attack")
    assert "digest: sha256:" in said, said
    ada.wait_for("my-attack", "scored")
    entry = ada.entry("my-attack")
    assert entry is not None
    assert (entry["kind"], entry["state"]) == ("attack", "scored")

    # The same again sends nothing and enters nothing; under another name its layers need not travel either.
    said = ada.push("anomed/random", f"{mine}/my-attack:attack")
    assert "Layer already exists" in said
    assert "Pushed" not in said
    said = ada.push("anomed/random", f"{mine}/again:attack")
    assert "Mounted from" in said
    assert "Pushed" not in said
    ada.wait_for("again", "scored")
    assert len(arena.api(ada.email, "challenges/clinic/submissions")["results"]) == 2


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_pushes(arena: Arena, ada: Desk, tiny: str, client: str) -> None:
    name = f"by-{'old' if client == CLIENTS[0] else 'new'}-client"
    desk = Desk(arena, ada.email, ada.folder, client)
    assert "digest: sha256:" in desk.push(tiny, f"{prefix(ada)}/{name}:defense")
    desk.wait_for(name, "failed")
    entry = desk.entry(name)
    assert entry is not None
    assert entry["failure"]["reason"] == "rehearsal_failed"  # type: ignore[index]  # it was started and ended with 3


def test_the_wrong_person_is_refused(arena: Arena, ada: Desk, ben: Desk, tiny: str, tmp_path: Path) -> None:
    mine = prefix(ada)
    assert "digest: sha256:" in ada.push(tiny, f"{mine}/secret:defense")
    assert "You cannot push to this name" in ben.push(tiny, f"{mine}/secret:defense")
    for name in ("secret:defense", "secret", "nothing:attack"):
        pulled = ben.docker("pull", f"{ben.registry}/{mine}/{name}")
        assert pulled.returncode != 0
        assert "denied" in pulled.stderr
    stranger = Desk(arena, "", tmp_path)
    assert "a token from your profile page" in stranger.push(tiny, f"{mine}/secret:defense")
    assert stranger.docker("pull", f"{ben.registry}/{mine}/secret:defense").returncode != 0


def test_a_password_does_not_sign_in(arena: Arena, ada: Desk, tmp_path: Path) -> None:
    desk = Desk(arena, ada.email, tmp_path)
    for secret in (PASSWORD, "0" * 64):
        assert "a token from your profile page" in desk.login(secret).stderr


def test_a_registry_that_was_killed_comes_back_and_loses_nothing(arena: Arena, ada: Desk, tiny: str) -> None:
    mine = prefix(ada)
    assert "digest: sha256:" in ada.push(tiny, f"{mine}/before:defense")
    config = str(arena.var / "private" / "registry" / "config.json")
    victims = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if config in command(folder)]
    assert victims
    for pid in victims:
        os.kill(pid, 9)
    wait_for(lambda: "digest: sha256:" in ada.push(tiny, f"{mine}/after:defense"), seconds=60, what="it takes pushes")
    # It died before it told of the first push, or while the image was fetched: the sweep, every minute, sees to that.
    arena.manage("shell", "-c", "from submissions.registry import pushes; pushes.sweep()")
    for name in ("before", "after"):
        ada.wait_for(name, "failed")


def command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""
