"""Does the harness itself leak or flatter? Five results; written to docs/validation.md with pictures (some minutes)."""

from __future__ import annotations

import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.common import Verdict
from challenges.features import one_thread


def measure(*, quick: bool = False) -> tuple[dict[str, Any], list[Verdict]]:
    """All five parts, each in processes of its own, and the page. `quick`: tiny sizes, no real data, no page."""
    from benchmarks.validation import gaming, null, order, page, real, truth

    jobs: dict[str, Callable[..., Any]] = {
        "truth, development": truth.development,
        "truth, final": truth.final,
        "order": order.run,
        "null": null.run,
        "gaming": gaming.run,
    }
    if not quick:
        if lacking := real.missing():
            raise SystemExit(lacking)
        if lacking := page.missing():
            raise SystemExit(lacking)
        jobs["real"] = real.run
    with ProcessPoolExecutor(len(jobs), mp_context=get_context("fork")) as pool:
        running = {name: pool.submit(_timed, job, quick) for name, job in jobs.items()}
        done = {name: future.result() for name, future in running.items()}
    found = {name: result for name, (result, _seconds) in done.items()}
    found["truth"] = truth.part([*found.pop("truth, development"), *found.pop("truth, final")])
    seconds = {name: took for name, (_result, took) in done.items()}
    seconds["truth"] = seconds.pop("truth, development") + seconds.pop("truth, final")
    parts = [found[name] for name in ("null", "truth", "order", "real", "gaming") if name in found]
    if not quick:
        page.write(parts, seconds)
    facts = {part.name: {**part.facts, "processor_seconds": round(seconds[part.name])} for part in parts}
    return facts, [verdict for part in parts for verdict in part.verdicts]


def _timed(job: Callable[..., Any], quick: bool) -> tuple[Any, float]:
    """A part and the processor time that it took, children included."""
    before = _processor()
    with one_thread():  # of children too: they are forks
        return job(quick=quick), _processor() - before


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
