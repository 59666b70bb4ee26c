"""Images of the local Docker, read through its command line."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

from anomed.problems import Problem

NAME = re.compile(r"[A-Za-z0-9][\w.:/@-]*")
ARCHITECTURES = frozenset({"amd64", "x86_64", ""})  # what the run hosts are; "" where an import left it open


@dataclass(frozen=True)
class Image:
    """An image of the local Docker, pinned by its id; `size` in bytes is Docker's own estimate."""

    id: str
    size: int


def find(name: str) -> Image:
    """Raises Problem where Docker is absent, does not answer, or knows no such image."""
    if not NAME.fullmatch(name):
        raise Problem(f"{name!r} is neither a file here nor the name of an image.")
    done = _docker("image", "inspect", name)
    if done.returncode:
        raise Problem(_why(name, done.stderr))
    try:
        (found,) = json.loads(done.stdout)
        image = Image(str(found["Id"]), int(found.get("Size", 0)))
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(f"Docker describes the image {name} in a way that this program does not understand.") from error
    architecture = found.get("Architecture", "")
    if architecture not in ARCHITECTURES:
        raise Problem(
            f"The image {name} is built for {architecture}, but the arena runs linux/amd64. "
            "Build it again with: docker build --platform linux/amd64 ..."
        )
    return image


@contextmanager
def saved(image: Image) -> Iterator[IO[bytes]]:
    """What `docker save` writes, as a stream that can be read once. Saved by id: a moved tag changes nothing."""
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(["docker", "save", image.id], stdout=subprocess.PIPE, stderr=complaints)
        except OSError as error:
            raise _absent() from error
        with process:
            stream = cast(IO[bytes], process.stdout)
            try:
                yield stream
                _drain(stream)  # the end of a tar may be padded
            except Problem:
                _drain(stream)
                if process.wait():  # the archive is torn because Docker gave up: its reason is the better one
                    raise _gave_up(complaints) from None
                raise
            if process.wait():
                raise _gave_up(complaints)


def _drain(stream: IO[bytes]) -> None:
    while stream.read(1 << 20):
        pass


def _gave_up(complaints: IO[bytes]) -> Problem:
    complaints.seek(0)
    return Problem(f"docker save failed: {complaints.read(2000).decode(errors='replace').strip()}")


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise _absent() from error


def _absent() -> Problem:
    return Problem(
        "There is no docker command on this machine. "
        "Install Docker, or give the path of an archive made by docker save elsewhere."
    )


def _why(name: str, complaint: str) -> str:
    if "No such image" in complaint:
        return f"There is neither a file nor an image named {name} here. Build it first: docker build -t {name} ."
    if "permission denied" in complaint:
        return "You may not talk to Docker on this machine. Join its group (docker), or give the path of an archive."
    if "Cannot connect" in complaint or "Is the docker daemon running" in complaint:
        return "Docker does not answer. Start it, or give the path of an archive made by docker save elsewhere."
    return f"Docker cannot describe the image {name}: {complaint.strip()}"
