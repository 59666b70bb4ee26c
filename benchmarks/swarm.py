"""How long a run waits for its place: on a node of a fleet of three engines, against a plain host. For information.

From the claim until its chamber is ready. Workers make chambers ahead, so on a plain host most runs find one at hand.
"""

import json
import statistics
import sys
import time
import uuid
from contextlib import ExitStack
from typing import Any

from benchmarks.common import Verdict, arena
from benchmarks.common import inside as run_inside
from tests.engines import SpareEngine

ROUNDS = 10
NUMBERS = (94, 95, 96)
LOOK_SECONDS = 0.02  # finer than the worker's own, to see what the swarm itself takes


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    with ExitStack() as stack:
        engines = [stack.enter_context(SpareEngine(f"swarm{number}", number)) for number in NUMBERS]
        made = stack.enter_context(arena(serve=False))
        facts = json.loads(run_inside(made, "swarm", *(f"{engine.url}={engine.address}" for engine in engines)))
    return facts, []


def inside(*engines: str) -> None:
    """Forms the fleet, and prints medians in milliseconds."""
    from sandbox import inspection, swarm_forming
    from sandbox.hosts import engine_of, swarm_of
    from sandbox.limits import Limits
    from sandbox.models import Host
    from sandbox.workers import worker_name

    nodes: dict[Host, str] = {}
    for number, engine in enumerate(engines):
        url, _equals, address = engine.partition("=")
        host = Host.objects.create(name=f"node-{number}", url=url)
        inspection.note(host)
        nodes[host] = address
    manager = next(iter(nodes))
    fleet = swarm_forming.form(name="fleet", manager=manager, nodes=nodes, slots=3)
    swarm, at = swarm_of(fleet), {host.name: host for host in nodes}
    names = {node.id: node.host for node in swarm.nodes()}
    [image] = {engine_of(host).holder_image() for host in nodes}
    limits = Limits(memory_mb=64, cpus=0.1, output_mb=8)

    def chamber(host: Host) -> None:
        holder_id = uuid.uuid4().hex[:16]
        began = time.perf_counter()
        engine_of(host).prepare(holder_id, limits.output_mb, worker_name(), 8)
        prepared.append((time.perf_counter() - began) * 1000)
        engine_of(host).remove_holder(holder_id)

    prepared: list[float] = []
    placed: list[float] = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        service = swarm.reserve(uuid.uuid4().hex, number, limits, image, [])
        while not (found := swarm.look(service)).running:
            time.sleep(LOOK_SECONDS)
        placed.append((time.perf_counter() - began) * 1000)
        chamber(at[names[found.node]])
        swarm.release(service)
    facts = {"placement_ms": _median(placed), "eight_chambers_ms": _median(prepared), "rounds": ROUNDS}
    for host in nodes:
        engine_of(host).remove_all_images()
    sys.stdout.write(json.dumps(facts))


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 1)
