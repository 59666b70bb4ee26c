"""A duel end to end in the worker, against a bare `docker run` of the same image with the same options.

But for NetworkDisabled, an option that its command line lacks: there the engine makes the empty network itself.

Twice: with a container that ends at once (its duel is named output_missing), and with the starter kit `random`,
which reads its inputs and writes scores. Both sides take turns: a change in the machine's speed meets both. Then the
same in gVisor, for information, if the engine has it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import Verdict, arena, image_id
from benchmarks.common import inside as run_inside
from tests.arena import build

ROUNDS, GVISOR_ROUNDS = 30, 10
WARM_UP = 3

NOTHING = "import os; os._exit(0)"


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    with arena(serve=False) as made:
        build(made.var / "nothing", "anomed-test/nothing", NOTHING)
        facts = json.loads(run_inside(made, "overhead", image_id("anomed-test/nothing"), image_id("anomed/random")))
    ratios = {name: fact["worker_ms"] / fact["docker_run_ms"] for name, fact in facts.items()}
    titles = {"nothing": "a container that does nothing", "random": "the kit `random`"}
    verdicts = [Verdict(f"worker / docker run, {title}", ratios[name], 1.5) for name, title in titles.items()]
    for name, title in titles.items():
        if (fact := facts.get(f"{name} in gVisor")) is not None:
            verdicts.append(Verdict(f"worker / docker run, {title}, both in gVisor", ratios[f"{name} in gVisor"]))
            slower = fact["worker_ms"] / facts[name]["worker_ms"]
            verdicts.append(Verdict(f"worker in gVisor / worker on runc, {title}", slower))
    return facts, verdicts


def inside(*images: str) -> None:
    """Runs both images, each against its bare run, and prints the medians in milliseconds."""
    from sandbox import actions
    from sandbox.offers import Wall

    host = actions.ensure_local_host(slots=1)
    facts = {}
    for name, engine_id in zip(("nothing", "random"), images, strict=True):
        facts[name] = _medians(name, engine_id, ROUNDS, [])
        if Wall.GVISOR in host.walls:
            facts[f"{name} in gVisor"] = _medians(f"{name}-gvisor", engine_id, GVISOR_ROUNDS, [Wall.GVISOR.value])
    sys.stdout.write(json.dumps(facts))


def _medians(prefix: str, engine_id: str, rounds: int, walls: list[str]) -> dict[str, Any]:
    from benchmarks import game
    from sandbox import leases
    from sandbox.chambers import chambers
    from sandbox.models import Run
    from sandbox.worker import drive
    from submissions.models import Submission

    game.release(game.entries(kind="defense", number=1, image=game.image(engine_id), prefix=prefix)[0])
    game.entries(kind="attack", number=rounds + WARM_UP, image=game.image(engine_id), prefix=prefix)
    game.pair_all()
    Run.objects.queued().update(walls=walls)
    worker, bare = [], []
    for _ in range(rounds + WARM_UP):
        run = leases.claim(chambers().worker)
        assert run is not None  # there are as many as rounds
        worker.append(milliseconds(partial(drive, run)))
        chambers().rest()  # its removals and preparations are not to slow the other side down
        bare.append(_docker_run(run, engine_id))
    Submission.objects.update(active=False)
    return {
        "worker_ms": round(statistics.median(worker[WARM_UP:]), 1),
        "docker_run_ms": round(statistics.median(bare[WARM_UP:]), 1),
        "rounds": rounds,
    }


def milliseconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _docker_run(run: Any, engine_id: str) -> float:
    """`docker run` with the worker's options and the inputs of the same duel, removal included."""
    from sandbox import purposes, walls
    from sandbox.conf import conf

    limits = run.wants
    options = walls.container(
        image_id=engine_id,
        step=run.step,
        limits=limits,
        gpus=[],
        inputs="-",
        outputs="-",
        hosts="-",
        conf=conf(),
        demanded=run.walls,
    )["HostConfig"]
    runtime = [f"--runtime={options['Runtime']}"] if "Runtime" in options else []
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        purposes.get(run.purpose).write_inputs(run, inputs)
        inputs.chmod(0o755)
        command = [
            "docker", "run", "--rm", *runtime, "--network=none", "--read-only", "--cap-drop=ALL", "--user=65534:65534",
            "--security-opt=no-new-privileges:true", f"--security-opt=seccomp={conf().seccomp}",
            f"--pids-limit={options['PidsLimit']}", f"--memory={options['Memory']}",
            f"--memory-swap={options['MemorySwap']}",
            f"--cpus={limits.cpus}", "--ipc=private", "--shm-size=16m", "--init", "--no-healthcheck",
            "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777",
            f"--tmpfs=/output:rw,noexec,nosuid,nodev,size={limits.output_mb}m,mode=1777",
            "--ulimit=nofile=1024", "--ulimit=core=0", "--log-opt=max-size=1m", "--log-opt=max-file=2",
            f"--volume={inputs}:/input:ro", "--env=ANOMED_STEP=attack", "--env=ANOMED_INPUT=/input",
            "--env=ANOMED_OUTPUT=/output", engine_id,
        ]  # fmt: skip
        return milliseconds(lambda: subprocess.run(command, check=True, capture_output=True))
