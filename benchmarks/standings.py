"""Standings after one more duel with 10,000 stored duels against 100; and the number of queries of the boards' page."""

import json
import statistics
import sys
import time
from functools import cache
from typing import Any

from benchmarks.common import Verdict, arena
from benchmarks.common import inside as run_inside

ROUNDS = 25
SIDES = (10, 100)


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    with arena(serve=False) as made:
        facts = json.loads(run_inside(made, "standings"))
    small, large = (facts[str(side * side)] for side in SIDES)
    return facts, [
        Verdict("one more duel, 10,000 / 100 stored", large["one_more_ms"] / small["one_more_ms"], 3.0),
        Verdict("seconds for the intervals and bands of 10,000, beside the duels", large["reckoning_s"]),
        Verdict("queries of the boards' page, 10,000 / 100 stored", large["queries"] / small["queries"], 1.0),
    ]


def inside() -> None:
    """Stores side x side finished duels, then times one more, and counts the queries of the page."""
    from django.conf import settings
    from django.db import connection, transaction
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from benchmarks import game
    from challenges.models import Challenge
    from submissions import reckoning, standings
    from submissions.models import Duel

    settings.ALLOWED_HOSTS = ["testserver"]
    facts = {}
    image = game.image("sha256:" + "0" * 64)
    defenses: list[Any] = []
    attacks: list[Any] = []
    for side in SIDES:
        with transaction.atomic():
            more = side - len(defenses)
            new_defenses = game.entries(kind="defense", number=more, image=image, prefix=str(side))
            attacks += game.entries(kind="attack", number=more, image=image, prefix=str(side))
            defenses += [(defense, game.release(defense)) for defense in new_defenses]
            met = set(Duel.objects.values_list("attack", "release"))
            Duel.objects.bulk_create(
                _duel(attack, release, (row * 31 + column * 17) % 100)
                for row, attack in enumerate(attacks)
                for column, (_defense, release) in enumerate(defenses)
                if (attack.pk, release.pk) not in met
            )
            standings.refresh_all(Challenge.objects.get())
        times = []
        for index in range(ROUNDS):
            _defense, release = defenses[index % side]
            attack = attacks[(index * 7) % side]
            Duel.objects.filter(attack=attack, release=release).delete()
            began = time.perf_counter()
            with transaction.atomic():
                duel = _duel(attack, release, 40)
                duel.save()
                standings.refresh_duel(duel)
            times.append((time.perf_counter() - began) * 1000)
        client = Client()
        client.get("/challenges/clinic/boards/")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page = client.get("/challenges/clinic/boards/")
        if page.status_code != 200:
            raise RuntimeError(f"The boards' page answered {page.status_code}.")
        began = time.perf_counter()
        reckoning.reckon(Challenge.objects.get().phases.get().pk)
        facts[side * side] = {
            "one_more_ms": round(statistics.median(times), 2),
            "queries": len(queries),
            "reckoning_s": round(time.perf_counter() - began, 2),
        }
    sys.stdout.write(json.dumps(facts))


def _duel(attack: Any, release: Any, hundredths: int) -> Any:
    from submissions.models import Duel

    leak = hundredths / 1000
    return Duel(
        attack=attack,
        release=release,
        state=Duel.State.DONE,
        leaks=[[leak, leak / 2], [leak, leak / 3]],
        errors=[[0.02, 0.03], [0.02, 0.03]],
        replicates=_replicates(),
        mean_leak=leak * 0.7,
    )


@cache
def _replicates() -> bytes:
    """As large as real ones: whoever reads them along pays for it."""
    import numpy as np

    from challenges.metrics import bootstrap

    return bootstrap.pack(np.random.default_rng(0).normal(size=(bootstrap.RESAMPLES, 2, 2)))
