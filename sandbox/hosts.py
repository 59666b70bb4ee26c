"""The way from a host's row to its engine."""

import os
from functools import lru_cache
from pathlib import Path

from django.db.models import Count

from sandbox.conf import installation, private_root
from sandbox.engine import Engine
from sandbox.models import FLEET, Host
from sandbox.swarm import Swarm

LOCAL_HOST = "local"
MOST_HOSTS = 1024  # with more, lines would be closed and opened again and again


def engine_of(host: Host) -> Engine:
    """The engine of that host, the same object each time, so that its connections are used again.

    `unix://` is an engine on this machine, `tcp://` one that is reached by mutual TLS with the certificates in the
    host's folder. A fleet's is that of its manager. Does not connect yet.
    """
    return _engine(host.url.removeprefix(FLEET), installation(), _certificates(host), os.getpid())


def swarm_of(host: Host) -> Swarm:
    """The swarm that a fleet, or a host with an engine, is a manager of; the same object each time."""
    return _swarm(host.url.removeprefix(FLEET), installation(), _certificates(host), os.getpid())


def _certificates(host: Host) -> Path | None:
    url = host.url.removeprefix(FLEET)
    if not url.startswith("tcp:"):
        return None
    # a fleet's manager has a row of its own; without it there are none, and so no way to it: never one without TLS
    manager = Host.objects.asked().filter(url=url).first() if host.is_fleet else host
    return certificates_of((manager or host).name)


@lru_cache(maxsize=MOST_HOSTS)
def _swarm(url: str, installation: str, certificates: Path | None, process: int) -> Swarm:
    return Swarm(url, installation, certificates)


@lru_cache(maxsize=MOST_HOSTS)
def _engine(url: str, installation: str, certificates: Path | None, process: int) -> Engine:
    """By process, because a forked one must not share its parent's connections."""
    return Engine(url, installation, certificates)


def certificates_of(name: str) -> Path:
    """The folder with what this server needs to speak to the host of that name: `ca.pem`, `cert.pem`, `key.pem`."""
    return private_root() / "hosts" / name


def script_of(name: str) -> Path:
    """Where the script that makes a machine that host waits to be run, until the host has answered."""
    return certificates_of(name) / "join.sh"


def slots_elsewhere() -> dict[str, int]:
    """How many slots each host has that has joined and is not this machine's own engine, by name."""
    hosts = Host.objects.asked().exclude(name=LOCAL_HOST).exclude(heartbeat=None).annotate(count=Count("slots"))
    return dict(hosts.values_list("name", "count"))
