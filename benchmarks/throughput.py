"""10 attacks x 10 defenses of a second each on 2 slots: wall time against the sum of container seconds / slots."""

import json
import sys
import time
from typing import Any

from benchmarks.common import Verdict, arena, image_id
from benchmarks.common import inside as run_inside
from tests.arena import build

SIDE = 10
SLOTS = 2

# Reads its candidates and scores them, with as few imports as that takes: the second is slept, not computed.
SECOND = """
import time
from pyarrow import parquet, table

rows = parquet.read_table("/input/candidates.parquet", columns=["row"])
time.sleep(1)
parquet.write_table(table({"row": rows["row"], "score": [0.0] * len(rows)}), "/output/scores.parquet")
"""


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    with arena() as made:
        build(made.var / "second", "anomed-test/second", SECOND)
        facts = json.loads(run_inside(made, "throughput", image_id("anomed-test/second")))
    return facts, [
        Verdict(f"wall / ideal, {SIDE} x {SIDE} duels on {SLOTS} slots", facts["wall"] / facts["ideal"], 1.25)
    ]


def inside(engine_id: str) -> None:
    """Queues all duels while the workers are up, waits for the last, and prints the seconds."""
    from django.db import transaction
    from django.db.models import Sum

    from benchmarks import game
    from sandbox.models import Run
    from submissions.models import Duel

    image = game.image(engine_id)
    for defense in game.entries(kind="defense", number=1, image=image, prefix="warm"):
        game.release(defense)
    game.entries(kind="attack", number=SLOTS, image=image, prefix="warm")
    game.pair_all()
    _wait_for_all(Duel)
    warm = set(Run.objects.values_list("pk", flat=True))
    _retire_all()

    for defense in game.entries(kind="defense", number=SIDE, image=image, prefix="real"):
        game.release(defense)
    game.entries(kind="attack", number=SIDE, image=image, prefix="real")
    began = time.monotonic()
    with transaction.atomic():
        game.pair_all()
    _wait_for_all(Duel)
    wall = time.monotonic() - began
    runs = Run.objects.exclude(pk__in=warm)
    done = Duel.objects.filter(state=Duel.State.DONE, step__run__in=runs).count()
    if done != SIDE * SIDE:
        raise RuntimeError(f"Only {done} of {SIDE * SIDE} duels were scored.")
    seconds = runs.aggregate(all=Sum("seconds"))["all"]
    facts = {"wall": round(wall, 1), "container_seconds": round(seconds, 1), "ideal": round(seconds / SLOTS, 1)}
    sys.stdout.write(json.dumps(facts))


def _retire_all() -> None:
    from submissions.models import Submission

    Submission.objects.update(active=False)


def _wait_for_all(duel: Any) -> None:
    deadline = time.monotonic() + 600
    while duel.objects.pending().exists():
        if time.monotonic() > deadline:
            raise RuntimeError("The duels did not end within ten minutes.")
        time.sleep(0.05)
