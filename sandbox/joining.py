"""How a machine becomes a run host, and how it stops being one: shell scripts that need nothing but Docker there."""

import contextlib
import ipaddress
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from sandbox import certificates, inspection
from sandbox.connection import why
from sandbox.hosts import certificates_of, script_of
from sandbox.models import Host

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_FOLDER = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
LOOK_SECONDS = 0.5
SEND_SECONDS = 180  # a script waits up to a minute for what it starts


class HostError(Exception):
    """What is asked of a host cannot be done; the text is a sentence for the operator."""


def check_name(name: str) -> None:
    """Raises HostError unless it can be part of file names and units."""
    if not _NAME.fullmatch(name):
        raise HostError(_("A host's name has small letters, digits and hyphens only, 40 at most: for example node2."))


def address_of(url: str) -> tuple[str, int]:
    """The address, an IP address or a DNS name, and the port of `tcp://ADDRESS:PORT`. Raises HostError."""
    try:
        parts = urlsplit(url)
        address, port = parts.hostname or "", parts.port or 0
    except ValueError:
        address, port = "", 0
    sound = _is_ip(address) or bool(_DNS_NAME.fullmatch(address) and not address.rpartition(".")[2].isdigit())
    if not sound or not port or url not in (f"tcp://{address}:{port}", f"tcp://[{address}]:{port}"):
        raise HostError(_("The address of a host is tcp://ADDRESS:PORT, for example tcp://192.0.2.7:2376."))
    return address, port


def _is_ip(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def folder_for(host: Host, folder: str = "") -> str:
    """The folder on the host's machine below which everything is: where it joined last if none is named.

    Raises HostError.
    """
    check_folder(folder)
    with contextlib.suppress(OSError):
        folder = folder or _folder_file(host).read_text()
    return folder or f"/var/lib/anomed-host-{host.name}"


def _folder_file(host: Host) -> Path:
    return certificates_of(host.name) / "folder"


def check_folder(folder: str) -> None:
    """Raises HostError if everything of a host cannot go there; an empty one stands for the usual."""
    if folder and not _FOLDER.fullmatch(folder):
        raise HostError(_("The folder must be an absolute path of letters, digits, points, hyphens and underscores."))


def joining_script(host: Host, folder: str = "") -> str:
    """The script that makes a machine this host, with new certificates for it. Has a secret key, kept nowhere here."""
    address, _port = address_of(host.url)
    issued = certificates.for_host(address)
    folder = folder_for(host, folder)
    certificates.write_secret(_folder_file(host), folder)  # who joins it again need not know
    return _filled(
        "join.sh",
        NAME=shlex.quote(host.name),
        ADDRESS=shlex.quote(host.url.removeprefix("tcp://")),
        FOLDER=shlex.quote(folder),
        # what goes on while the engine is restarted is no use to a swarm, which refuses such engines
        RESTORE="--live-restore" if host.slots.exists() else "",
        AUTHORITY=issued.authority.strip(),
        CERTIFICATE=issued.certificate.strip(),
        KEY=issued.key.strip(),
        LEAVE=leaving_script(host, folder).rstrip(),
    )


def leaving_script(host: Host, folder: str = "") -> str:
    """The script that takes this host's engine, with everything that it holds, off its machine."""
    return _filled("leave.sh", NAME=shlex.quote(host.name), FOLDER=shlex.quote(folder_for(host, folder)))


def _filled(file: str, **values: str) -> str:
    text = Path(__file__).with_name(file).read_text()
    return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], text)


def send(script: str, through: str) -> str:
    """Runs a script on another machine by a command such as `ssh root@node2`; returns what it said.

    The script goes by standard input, so no key is in any command line. Raises HostError.
    """
    how: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "capture_output": True, "timeout": SEND_SECONDS}
    try:
        command = [*shlex.split(through), "sh", "-s"]
        done: subprocess.CompletedProcess[str] = subprocess.run(command, input=script, check=False, **how)
    except (OSError, ValueError) as error:  # there is no such command; a quotation mark is open
        text = _("%(command)s cannot be run: %(why)s.")
        raise HostError(text % {"command": through, "why": getattr(error, "strerror", error)}) from error
    except subprocess.TimeoutExpired as error:
        text = _("%(command)s did not end within %(seconds)d seconds.")
        raise HostError(text % {"command": through, "seconds": SEND_SECONDS}) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1000:]
        raise HostError(_("%(command)s failed: %(said)s") % {"command": through, "said": said or done.returncode})
    return done.stdout.strip()


def keep_script(host: Host, script: str) -> Path:
    """Writes the script beside the certificates, until the host has answered."""
    path = script_of(host.name)
    certificates.write_secret(path, script)
    return path


def wait_for_answer(host: Host, seconds: float) -> None:
    """Asks until the host answers. Raises HostError that says why it does not, or why it is not sound."""
    deadline = time.monotonic() + seconds
    while (fault := inspection.heartbeat(host)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    if fault:
        text = _("%(host)s has not answered within %(seconds)d seconds. %(why)s It joins as soon as it answers.")
        raise HostError(text % {"host": host, "seconds": seconds, "why": why(fault)})
    host.refresh_from_db()
    if host.complaint and host.state != Host.State.ACTIVE:
        raise HostError(_("%(host)s answers, but takes no runs. %(why)s") % {"host": host, "why": host.complaint})
