"""Images for tests of contract web/1 that no participant would copy: the published template, and ill-behaved ones."""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from shutil import copytree, which

import docker

from tests.arena import ROOT

TEMPLATE = "anomed-test/web-template"


def build_kits(*names: str) -> None:
    """These kits, as images `anomed/NAME`; what is up to date is left alone."""
    subprocess.run([sys.executable, ROOT / "starter_kits" / "build.py", *names], check=True)


def build_template() -> str:
    """The published template as an image. On Debian nginx comes by this machine's apt, elsewhere by the build's."""
    build_kits("base-web")
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder) / "template"
        copytree(Path(__file__).parent / "web_template", context)
        if which("apt-get"):
            _fetch_packages(context / "debs", "nginx")
        docker.from_env(timeout=600).images.build(path=str(context), tag=TEMPLATE, rm=True, forcerm=True)
    return TEMPLATE


def build_app(folder: Path, name: str, program: str, kit: str = "base-web") -> str:
    """An image with this app.py in place of the kit's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(program)
    (folder / "Dockerfile").write_text(f"FROM anomed/{kit}\nCOPY app.py ./\n")
    docker.from_env(timeout=600).images.build(path=str(folder), tag=name, rm=True, forcerm=True)
    return name


def _fetch_packages(target: Path, *names: str) -> None:
    """The Debian packages that the base lacks for these."""
    engine = docker.from_env(timeout=600)
    made = engine.containers.create("anomed/base-web", network_mode="none")
    try:
        packed = b"".join(made.get_archive("/var/lib/dpkg/status")[0])
    finally:
        made.remove()
    (target / "partial").mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        status = archive.extractfile("status")
        assert status is not None
        (target / "status").write_bytes(status.read())
    options = [f"Dir::State::status={target / 'status'}", f"Dir::Cache::archives={target}", "Debug::NoLocking=1"]
    command = ["apt-get", "--yes", "--quiet", "--download-only", "--no-install-recommends", "install"]
    subprocess.run([*command, *(f"--option={option}" for option in options), *names], check=True, capture_output=True)
