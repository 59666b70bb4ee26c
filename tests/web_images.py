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
        copytree(Path(__file__).parent / "web_apps" / "template", context)
        if which("apt-get"):
            _fetch_packages(context / "debs", "nginx")
        docker.from_env(timeout=600).images.build(path=str(context), tag=TEMPLATE, rm=True, forcerm=True)
    return TEMPLATE


def build_app(name: str, kit: str = "base-web", **environment: object) -> str:
    """`web_apps/NAME.py` as an image, with a kit's own app at hand as the module `kit`."""
    folder = ROOT / "tests" / "web_apps"
    lines = [f"FROM anomed/{kit}", *(f"ENV {key}={value}" for key, value in environment.items())]
    lines += [] if kit == "base-web" else ["COPY kit.py ./"]
    tag = "-".join(["anomed-test/web", name, *(str(value) for value in environment.values())])
    with tempfile.TemporaryDirectory() as context:
        Path(context, "app.py").write_bytes((folder / f"{name}.py").read_bytes())
        if kit != "base-web":
            Path(context, "kit.py").write_bytes((ROOT / "starter_kits" / kit / "app.py").read_bytes())
        Path(context, "Dockerfile").write_text("\n".join([*lines, "COPY app.py ./", ""]))
        docker.from_env(timeout=600).images.build(path=context, tag=tag, rm=True, forcerm=True)
    return tag


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
