"""Builds the shared base images and the starter kits: `python build.py [kit ...]`, all kits when none is named.

What is there already, made from the same files on the same base, is left as it is. No registry is needed: on a Debian
machine, as root and with mmdebstrap, the lowest layer is a small Debian with Python 3.11; elsewhere, or when told so by
`--python-image`, it is an image such as python:3.11-slim. Wheels are fetched by this machine's pip, so builds run
without a network. Builds go straight to the engine (DOCKER_HOST, default: the local socket), past any docker command.
"""

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, ImageNotFound

HERE = Path(__file__).parent
BASE = HERE / "base"
WEB_BASE = HERE / "base-web"
BASES = ("base", "base-torch", "base-web")
INPUTS = "anomed.inputs"  # the label that holds the digest of all that an image was made from
PYTHON_IMAGE = "python:3.11-slim"

# pip picks wheels for the containers' Python, whatever this machine runs.
WHEELS = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"]
WHEELS += [f"--platform={name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]

# Bookworm is the Debian release whose own Python is 3.11.
MMDEBSTRAP = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3-venv"]
MMDEBSTRAP += ['--aptopt=Acquire::Languages "none"']
MMDEBSTRAP += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "doc", "info")]
MMDEBSTRAP += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
# Where the packages came from and which machine made this is nobody's business.
FORGET = "rm -rf hostname resolv.conf apt/sources.list.d/* && : > apt/sources.list"
MMDEBSTRAP += [f'--customize-hook=cd "$1/etc" && {FORGET}']


class CannotBuild(Exception):
    """A sentence for the person who builds."""


class Builder:
    """Makes images on one engine. Every method that makes one returns its id."""

    def __init__(self, python_image: str, pip_options: str) -> None:
        self.engine = docker.from_env(timeout=600)
        self.python_image = python_image
        self.pip_options = pip_options.split()

    def named(self, name: str) -> str:
        """Builds one of BASES or a kit, and before a kit what its Dockerfile stands on: a base or another kit.

        A kit with a requirements.txt gets the wheels named there.
        """
        if name == "base":
            return self.build("anomed/base", BASE, "Dockerfile", self.python(), wheels=["requirements.txt"])
        if name == "base-torch":
            wheels = ["requirements.txt", "requirements-torch.txt"]
            return self.build("anomed/base-torch", BASE, "Dockerfile.torch", self.named("base"), wheels=wheels)
        if name == "base-web":
            return self.build("anomed/base-web", WEB_BASE, "Dockerfile", self.python(), wheels=["requirements.txt"])
        dockerfile = (HERE / name / "Dockerfile").read_text(encoding="utf-8")
        base = re.search(r"^ARG BASE_IMAGE=anomed/(\S+)", dockerfile, re.MULTILINE)
        wheels = [path.name for path in (HERE / name).glob("requirements.txt")]
        below = self.named(base[1] if base else "base")
        return self.build(f"anomed/{name}", HERE / name, "Dockerfile", below, wheels=wheels)

    def python(self) -> str:
        """The image with a bare Python 3.11 on which all others stand."""
        if self.python_image:
            return self.pulled(self.python_image)
        if shutil.which("mmdebstrap") and os.geteuid() == 0:
            return self.debian()
        return self.pulled(PYTHON_IMAGE)

    def pulled(self, name: str) -> str:
        try:
            return self.engine.images.get(name).id
        except ImageNotFound:
            say(name, "pulling")
        try:
            return self.engine.images.pull(name).id
        except APIError as error:
            raise CannotBuild(
                f"The image {name} is not on the engine and cannot be pulled. Name one that has Python 3.11 with "
                "--python-image, or install mmdebstrap and run this as root on Debian."
            ) from error

    def debian(self) -> str:
        name, inputs = "anomed/debian", digest(MMDEBSTRAP)
        if found := self.made_before(name, inputs):
            return found
        say(name, "installing Debian's packages")
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "debian.tar")
            sources = debian_sources()
            run([*MMDEBSTRAP, "bookworm", str(archive), *(["-"] if sources else [])], text=sources)
            self.engine.api.import_image(str(archive), name, "latest", changes=[f"LABEL {INPUTS}={inputs}"])
        return self.done(name)

    def build(self, name: str, folder: Path, dockerfile: str, base: str, wheels: Sequence[str] = ()) -> str:
        """Builds the image if its files or its base are other than last time."""
        sources = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".txt") or path.name == dockerfile)
        texts = [f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in sources]
        inputs = digest([base, dockerfile, *self.pip_options, *texts])
        if found := self.made_before(name, inputs):
            return found
        say(name, "building")
        with tempfile.TemporaryDirectory() as context:
            for path in sources:
                shutil.copy(path, context)
            if wheels:
                target = f"--dest={Path(context, 'wheels')}"
                requirements = [f"--requirement={folder / file}" for file in wheels]
                run([sys.executable, "-m", "pip", "download", *WHEELS, *self.pip_options, target, *requirements])
            self.build_context(name, context, dockerfile, base, inputs)
        self.remove_stages()
        return self.done(name)

    def build_context(self, name: str, context: str, dockerfile: str, base: str, inputs: str) -> None:
        said = self.engine.api.build(
            path=context,
            dockerfile=dockerfile,
            tag=name,
            buildargs={"BASE_IMAGE": base, "PIP_OPTIONS": "--no-index"},
            labels={INPUTS: inputs},
            network_mode="none",
            forcerm=True,
            decode=True,
        )
        lines = []
        for message in said:
            lines.append(message.get("stream", ""))
            if "error" in message:
                raise CannotBuild(f"{''.join(lines[-40:])}\n{name} could not be built: {message['error']}")

    def remove_stages(self) -> None:
        """Frees the disk from first stages, which hold every wheel once more."""
        for stage in self.engine.images.list(filters={"dangling": True, "label": "anomed.stage=build"}):
            with contextlib.suppress(APIError):  # another build stands on it
                self.engine.images.remove(stage.id)

    def made_before(self, name: str, inputs: str) -> str | None:
        try:
            image = self.engine.images.get(name)
        except ImageNotFound:
            return None
        return image.id if image.labels.get(INPUTS) == inputs else None

    def done(self, name: str) -> str:
        image = self.engine.images.get(name)
        say(name, f"ready, {image.attrs['Size'] / 1e6:.0f} MB")
        return image.id


def debian_sources() -> str:
    """This machine's own Debian mirrors as apt lines; empty (mmdebstrap then knows one) where it has none."""
    if not shutil.which("apt-get"):
        return ""
    columns = "$(ORIGIN)|$(CODENAME)|deb $(REPO_URI) $(CODENAME) $(COMPONENT)"
    listed = run(["apt-get", "indextargets", "--format", columns, "Created-By: Packages"])
    parts = (line.split("|") for line in listed.splitlines())
    lines = {line for origin, suite, line in parts if origin == "Debian" and suite.startswith("bookworm")}
    return "".join(f"{line}\n" for line in sorted(lines))


def digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def run(command: list[str], text: str = "") -> str:
    finished = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise CannotBuild(f"{finished.stderr[-3000:]}\n`{command[0]}` failed, see above.")
    return finished.stdout


def say(name: str, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {name}: {what}", flush=True)


def kits() -> list[str]:
    return sorted(path.parent.name for path in HERE.glob("*/Dockerfile") if path.parent.name not in BASES)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the shared base images and the starter kits.")
    parser.add_argument("kits", nargs="*", metavar="kit", help=f"{', '.join([*kits(), *BASES])}; default: all kits")
    parser.add_argument(
        "--python-image", default=os.environ.get("BASE_IMAGE", ""), help="image with a bare Python 3.11"
    )
    parser.add_argument("--pip-options", default=os.environ.get("PIP_OPTIONS", ""), help="as an index with CPU wheels")
    chosen = parser.parse_args()
    if unknown := set(chosen.kits) - {*kits(), *BASES}:
        parser.error(f"there is no kit named {', '.join(sorted(unknown))}")
    try:
        builder = Builder(chosen.python_image, chosen.pip_options)
        for name in chosen.kits or kits():
            builder.named(name)
    except (CannotBuild, DockerException) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
