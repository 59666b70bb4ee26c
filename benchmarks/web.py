"""A membership duel between two web images in the worker, against the same exchange by hand over `docker run`.

By hand: the attack's server, the gateway in its loopback, the same inputs, the same options; until the gateway ends
and both are removed. Both sides take turns: a change in the machine's speed meets both. And what the engine stores of
the images, by its own account.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import docker

from benchmarks.common import Verdict, arena, image_id
from benchmarks.common import inside as run_inside
from benchmarks.overhead import milliseconds

ROUNDS, WARM_UP = 12, 2
DEFENSE, ATTACK, BASE = "anomed/web-anonymizer", "anomed/web-deanonymizer", "anomed/base-web"
KITS = Path(__file__).parent.parent / "starter_kits"


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    kits = [name.partition("/")[2] for name in (DEFENSE, ATTACK)]
    subprocess.run([sys.executable, str(KITS / "build.py"), "base", *kits], check=True)
    with arena(serve=False) as made:
        facts = json.loads(run_inside(made, "web", *(image_id(name) for name in (DEFENSE, ATTACK, "anomed/base"))))
    stored = {name: _stored(name) for name in (BASE, DEFENSE, ATTACK)}
    unshared = sum(stored[name]["unique_mb"] for name in (DEFENSE, ATTACK)) / stored[BASE]["size_mb"]
    return {**facts, "stored": stored}, [
        Verdict("worker / docker run, a duel between two web images", facts["worker_ms"] / facts["docker_run_ms"], 1.3),
        Verdict("stored for two images beside their base / size of the base", unshared, 0.01),
    ]


def inside(defense: str, attack: str, gateway: str) -> None:
    """Plays both sides and prints the medians in milliseconds."""
    from benchmarks import game
    from sandbox import actions, leases
    from sandbox.chambers import chambers
    from sandbox.models import Image
    from sandbox.worker import drive

    actions.ensure_local_host(slots=1)
    Image.objects.create(image_id=gateway, name="anomed/base", is_base=True, layers=[], size=1)
    game.release(game.entries(kind="defense", number=1, image=game.image(defense), prefix="web", contract="web/1")[0])
    game.entries(kind="attack", number=ROUNDS + WARM_UP, image=game.image(attack), prefix="web", contract="web/1")
    game.pair_all()
    worker, bare = [], []
    for _ in range(ROUNDS + WARM_UP):
        run = leases.claim(chambers().worker)
        assert run is not None  # there are as many as rounds
        worker.append(milliseconds(partial(drive, run)))
        run.refresh_from_db()
        assert run.state == run.State.SUCCEEDED, run.detail
        chambers().rest()  # its removals and preparations are not to slow the other side down
        bare.append(_by_hand(run, attack, gateway))
    facts = {
        "worker_ms": round(statistics.median(worker[WARM_UP:]), 1),
        "docker_run_ms": round(statistics.median(bare[WARM_UP:]), 1),
        "rounds": ROUNDS,
    }
    sys.stdout.write(json.dumps(facts))


def _by_hand(run: Any, attack: str, gateway: str) -> float:
    """The exchange of a duel with the worker's options and inputs, removal included."""
    from sandbox import purposes, walls
    from sandbox.conf import conf
    from sandbox.exchange import PROGRAM

    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        outputs.mkdir()
        purposes.get(run.purpose).write_inputs(run, inputs)
        shutil.copytree(PROGRAM, inputs / walls.GATEWAY, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (inputs, Path(folder)):
            path.chmod(0o755)
        outputs.chmod(0o777)
        name = f"anomed-by-hand-{Path(folder).name}"
        common = {"limits": run.wants, "outputs": "-", "conf": conf()}
        served = walls.server(image_id=attack, limits=run.wants, gpus=[], persistent="-", conf=conf())
        asking = walls.gateway(image_id=gateway, server=name, inputs="-", **common)
        # The owner is named, for a tmpfs over a folder of the image takes that folder's mode.
        begin = [
            "docker", "run", "--detach", f"--name={name}", *_options(served),
            f"--tmpfs={walls.PERSISTENT}:rw,noexec,nosuid,nodev,size={run.wants.output_mb}m,uid=65534,gid=65534",
            attack,
        ]  # fmt: skip
        talk = [
            "docker", "run", "--rm", *_options(asking), f"--volume={inputs}:{walls.INPUT}:ro",
            f"--volume={outputs}:{walls.OUTPUT}", f"--entrypoint={asking['Entrypoint'][0]}", gateway,
            *asking["Entrypoint"][1:],
        ]  # fmt: skip
        end = ["docker", "rm", "--force", name]

        def exchange() -> None:
            subprocess.run(begin, check=True, capture_output=True)
            try:
                said = subprocess.run(talk, capture_output=True, text=True)
                if said.returncode:
                    raise RuntimeError(said.stderr)
            finally:
                subprocess.run(end, check=True, capture_output=True)

        spent = milliseconds(exchange)
        assert (outputs / "said" / "scores").exists()  # it has been talked about the same
        return spent


def _options(body: dict[str, Any]) -> list[str]:
    """The options of a create request as those of `docker run`, but for volumes."""
    from sandbox.conf import conf

    host = body["HostConfig"]
    flags = [f"--env={line}" for line in body["Env"]]
    flags += [f"--user={body['User']}"] if "User" in body else []
    flags += [f"--cap-drop={name}" for name in host["CapDrop"]] + [
        f"--cap-add={name}" for name in host.get("CapAdd", [])
    ]
    flags += [
        f"--security-opt=seccomp={conf().seccomp}" if option.startswith("seccomp=") else f"--security-opt={option}"
        for option in host["SecurityOpt"]
    ]
    flags += [f"--tmpfs={path}:{options}" for path, options in host["Tmpfs"].items()]
    flags += [f"--ulimit={one['Name']}={one['Soft']}:{one['Hard']}" for one in host["Ulimits"]]
    flags += [f"--log-opt={name}={value}" for name, value in host["LogConfig"]["Config"].items()]
    return [
        *flags, f"--network={host['NetworkMode']}", "--read-only", "--init", "--no-healthcheck",
        f"--pids-limit={host['PidsLimit']}", f"--memory={host['Memory']}", f"--memory-swap={host['MemorySwap']}",
        f"--cpus={host['NanoCpus'] / 10**9}", f"--ipc={host['IpcMode']}", f"--shm-size={host['ShmSize']}",
        f"--log-driver={host['LogConfig']['Type']}",
    ]  # fmt: skip


def _stored(name: str) -> dict[str, float]:
    """What `docker system df --verbose` says of an image, in MB: all of it, and what no other image shares."""
    images = docker.from_env(timeout=600).df()["Images"]
    found = next(image for image in images if image["Id"] == image_id(name))
    return {
        "size_mb": round(found["Size"] / 1e6, 3),
        "shared_mb": round(found["SharedSize"] / 1e6, 3),
        "unique_mb": round((found["Size"] - found["SharedSize"]) / 1e6, 3),
    }
