"""A duel end to end in the worker, against a bare `docker run` of the same image with the same options.

Twice: with a container that ends at once (its duel is named output_missing), and with the starter kit `random`,
which reads its inputs and writes scores. Both sides take turns: a change in the machine's speed meets both.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import Verdict, arena, image_id
from benchmarks.common import inside as run_inside
from tests.arena import build

ROUNDS = 30
WARM_UP = 3

NOTHING = "import os; os._exit(0)"


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    with arena(serve=False) as made:
        build(made.var / "nothing", "anomed-test/nothing", NOTHING)
        facts = json.loads(run_inside(made, "overhead", image_id("anomed-test/nothing"), image_id("anomed/random")))
    ratios = {name: fact["worker_ms"] / fact["docker_run_ms"] for name, fact in facts.items()}
    return facts, [
        Verdict("worker / docker run, a container that does nothing", ratios["nothing"], 1.5),
        Verdict("worker / docker run, the kit `random`", ratios["random"], 1.5),
    ]


def inside(*images: str) -> None:
    """Runs both, in turn, and prints the medians in milliseconds."""
    from benchmarks import game
    from sandbox import actions, leases
    from sandbox.chambers import chambers
    from sandbox.worker import drive
    from submissions.models import Submission

    actions.ensure_local_host(slots=1)
    facts = {}
    for name, engine_id in zip(("nothing", "random"), images, strict=True):
        rounds = ROUNDS + WARM_UP
        game.release(game.entries(kind="defense", number=1, image=game.image(engine_id), prefix=name)[0])
        game.entries(kind="attack", number=rounds, image=game.image(engine_id), prefix=name)
        game.pair_all()
        worker, bare = [], []
        for _ in range(rounds):
            run = leases.claim(chambers().worker)
            worker.append(_milliseconds(lambda run=run: drive(run)))
            bare.append(_docker_run(run, engine_id))
        facts[name] = {
            "worker_ms": round(statistics.median(worker[WARM_UP:]), 1),
            "docker_run_ms": round(statistics.median(bare[WARM_UP:]), 1),
            "rounds": ROUNDS,
        }
        Submission.objects.update(active=False)
    sys.stdout.write(json.dumps(facts))


def _milliseconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _docker_run(run: Any, engine_id: str) -> float:
    """`docker run` with the worker's options and the inputs of the same duel, removal included."""
    from sandbox import purposes
    from sandbox.conf import conf

    limits = run.wants
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        purposes.get(run.purpose).write_inputs(run, inputs)
        inputs.chmod(0o755)
        command = [
            "docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--user=65534:65534",
            "--security-opt=no-new-privileges:true", f"--security-opt=seccomp={conf().seccomp}",
            f"--pids-limit={limits.pids}", f"--memory={limits.memory_mb}m", f"--memory-swap={limits.memory_mb}m",
            f"--cpus={limits.cpus}", "--ipc=private", "--shm-size=16m", "--init", "--no-healthcheck",
            "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777",
            f"--tmpfs=/output:rw,noexec,nosuid,nodev,size={limits.output_mb}m,mode=1777",
            "--ulimit=nofile=1024", "--ulimit=core=0", "--log-opt=max-size=1m", "--log-opt=max-file=2",
            f"--volume={inputs}:/input:ro", "--env=ANOMED_STEP=attack", "--env=ANOMED_INPUT=/input",
            "--env=ANOMED_OUTPUT=/output", engine_id,
        ]  # fmt: skip
        return _milliseconds(lambda: subprocess.run(command, check=True, capture_output=True))
