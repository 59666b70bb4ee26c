"""The line to one Docker Engine. Whatever goes wrong on it is an `EngineFault`: a fault of the platform.

Over TCP both sides show certificates (see `certificates`): there is no way to an engine that is not our own.
"""

import contextlib
import errno
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from django.utils.translation import gettext as _
from docker.errors import APIError, DockerException, NotFound, TLSParameterError
from docker.tls import TLSConfig

from sandbox.conf import conf

INSTALLATION = "anomed.installation"
# what is kept of an engine's account of itself
INFO = (
    "ServerVersion", "KernelVersion", "OperatingSystem", "OSType", "Architecture", "NCPU", "MemTotal", "Driver",
    "CgroupDriver", "CgroupVersion", "MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota", "SecurityOptions",
    "Runtimes", "DefaultRuntime", "CDISpecDirs", "DiscoveredDevices", "Warnings",
)  # fmt: skip


class EngineFault(Exception):
    """The engine did not do what it was asked, through no fault of the image."""


class Unreachable(EngineFault):
    """The engine did not answer at all, or said that it serves nobody now."""


class NotThere(EngineFault):
    """The engine has no such image, container or volume."""


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turns whatever may go wrong on the way to the engine into an EngineFault that says what was being done."""
    try:
        yield
    except NotFound as error:
        raise NotThere(f"{what}: {error.explanation}") from error
    except APIError as error:
        # an engine that is just ending, a manager without its swarm or its leader
        kind = Unreachable if error.status_code == HTTPStatus.SERVICE_UNAVAILABLE else EngineFault
        raise kind(f"{what}: {error.explanation}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, DockerException, OSError) as error:
        raise Unreachable(f"{what}: {type(error).__name__}") from error


def why(fault: BaseException) -> str:
    """Why an engine does not answer, as a sentence for operators."""
    causes = list(_causes(fault))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return _("The certificate that it shows is not the one that was made for this address.")
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return _("It does not accept our certificate, or does not speak TLS at all.")
    if any(isinstance(cause, TLSParameterError) for cause in causes):
        return _("There are no certificates for it here.")
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return _("The connection was refused: no engine listens there.")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return _("Its name is not known.")
    if any(isinstance(cause, TimeoutError | requests.Timeout) for cause in causes):
        return _("It does not answer in time: a firewall may be in between, or the machine is down.")
    if any(isinstance(cause, OSError) and cause.errno in _NO_WAY for cause in causes):
        return _("There is no way to its address in the network.")
    return _("It does not answer as an engine does: %(fault)s") % {"fault": fault}


_NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH)


def timed_out(error: BaseException) -> bool:
    """Whether we waited no longer, rather than that the engine hung up: in an answer's body both look alike."""
    return any(isinstance(cause, requests.Timeout | urllib3.exceptions.TimeoutError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error with everything that it came from: libraries wrap it in different ways."""
    waiting, seen = [error], set()
    while waiting:
        found = waiting.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            inner = (found.__cause__, found.__context__, getattr(found, "reason", None), *found.args)
            waiting += [cause for cause in inner if isinstance(cause, BaseException)]


class _Client(docker.APIClient):
    """One that heeds nothing in the environment: REQUESTS_CA_BUNDLE would stand in for our own authority, and a proxy
    would get between.
    """

    trust_env = property(lambda self: False, lambda self, value: None)


class Connection:
    """The engine at `url`. May be shared by threads: each has a client of its own, as the SDK wants it.

    `certificates` is the folder of this host's `ca.pem`, `cert.pem` and `key.pem`; None for a local socket.
    """

    def __init__(self, url: str, installation: str, certificates: Path | None = None) -> None:
        self.url = url
        self.installation = installation
        self.prefix = f"anomed-{re.sub('[^a-z0-9]', '', installation.lower())[:8]}"  # of all names that we give
        self._certificates = certificates
        self._local = threading.local()
        self._version: str | None = None
        self.cut_at = 0.0  # by the monotonic clock: when the engine last hung up while a container was waited for

    @property
    def _client(self) -> Any:  # a docker.APIClient, many of whose methods have no types
        return self._mine("client", conf().engine_timeout)

    @property
    def _brief(self) -> Any:
        """A client for questions that are not worth waiting for: an engine that is well answers them at once."""
        return self._mine("brief", conf().heartbeat_timeout)

    def _mine(self, name: str, timeout: int) -> Any:
        client = getattr(self._local, name, None)
        if client is None:
            client = self._connect(timeout)
            setattr(self._local, name, client)
        return client

    def _connect(self, timeout: int) -> Any:
        version = self._version or "auto"
        client: Any = _Client(base_url=self.url, version=version, timeout=timeout, tls=self._tls())
        self._version = client.api_version
        return client

    def _tls(self) -> TLSConfig | bool:
        if self._certificates is None:
            return False
        authority, ours, key = (str(self._certificates / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        return TLSConfig(client_cert=(ours, key), ca_cert=authority, verify=True)

    def hang_up(self) -> None:
        """Closes the connections of the calling thread, which the SDK would keep by the dozen."""
        for name in ("client", "brief"):
            client = self._local.__dict__.pop(name, None)
            if client is not None:
                client.close()

    def _labels(self, **more: str) -> dict[str, str]:
        return {INSTALLATION: self.installation, **more}

    def answers(self) -> bool:
        """Whether it answers, and soon."""
        try:
            with asking("ask the engine whether it is there"):
                return bool(self._brief.ping())
        except EngineFault:
            return False

    def info(self) -> dict[str, Any]:
        """What the engine says of itself: version, kernel, limits that it can enforce, security options, runtimes."""
        with asking("ask the engine for its version"):
            answer = self._brief.info()
        return {name: answer.get(name) for name in INFO}


def ignoring_gone(remove: Callable[..., Any], name: str, **options: Any) -> None:
    """Removes or stops something. That it is gone already, or just going, is no error."""
    try:
        remove(name, **options)
    except APIError as error:
        # 409: not running, or somebody else is removing it right now
        if error.status_code not in (404, 409) and "active mounts" not in str(error.explanation):
            raise  # the latter: an engine that was restarted has lost count, until it is started once more


def guarded(stream: Iterable[bytes], what: str) -> Iterator[bytes]:
    """The pieces of a stream. Only its own troubles become faults of the engine, not those of whoever reads it."""
    with asking(what):
        yield from stream


def ours(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a stream that we send. A file of ours that is gone is not the engine's silence."""
    try:
        yield from stream
    except OSError as error:
        raise EngineFault(f"a file of ours could not be read: {type(error).__name__}") from error
