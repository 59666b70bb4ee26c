"""docs/security.md, made from the cases' own data and from what was seen: `python -m tests.hostile.report RESULTS...`.

Results are what `python -m tests.hostile --save FILE` and `python -m tests.hostile.mutations --save FILE` wrote.
"""

import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker

from tests.hostile.cases import CASES
from tests.hostile.model import GROUPS, Case
from tests.hostile.mutations import MUTATIONS
from tests.hostile.play import Performance

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
NAMES = {"runc": "runc", "gvisor": "gVisor"}

INTRODUCTION = """# Security

Strangers' images run next to private patient data on this server. This page says what the sandbox promises, what
was tried against each promise, and what came of it. It is made by `make hostile ARGS=--write` from the cases of
`tests/hostile/`: every case is a tiny image or archive that is entered into a running arena as a participant would
enter it, through upload, check, rehearsal and a run on private data. Read it as the record of one run on one
machine: `make hostile` makes the same table on yours.

## What is promised

* **Nothing gets out.** A container has no network, no socket of the host, and no device. What it prints on private
  data is read by organisers alone. A participant learns a score, or one of nine reasons, and times in steps of 30
  seconds.
* **Nothing gets in.** No image runs as root, gains a privilege, or reaches the kernel by calls that it does not
  need. (A web server may begin as a root who can do no more than become another user.) An archive's own description
  is never believed: every digest is recomputed before an engine sees it.
* **Nothing stays.** Each run has a container, volumes and names of its own. Nothing that it leaves is there in the
  next.
* **Nobody pays for another.** Memory, processors, processes, files, disk, log and time of a run are bounded.
  Whatever it does, the worker lives, and the polite run beside it gets the same numbers as ever.
* **Nothing it writes is executed, followed or unpacked.** Outputs are read from a stream, member by member, and
  parsed in an isolated child with little memory and time.

A run, a rehearsal too, goes only to a host that offers every standard wall. The second wall, gVisor, can be demanded
by a challenge or for all (see [Operators](operators)): then a program talks to a kernel of its own, written in Go,
and only that one talks to the host's.
"""

NOT_COVERED = """## What is not covered

* **Bugs of the kernel** that can be reached by the calls that remain (about 290 on runc). gVisor reduces them; a
  machine that holds nothing but one hospital's data reduces what they are worth.
* **Side channels of the hardware** between programs on one processor: caches, branch predictors, memory buses.
  Counters (perf) and precise faults (userfaultfd) are refused, clocks are not. Run one slot per machine, or turn
  hyper-threading off, where that matters.
* **When a private run ends.** Its time is shown in steps of 30 seconds, but an entry's state and the boards change
  within a second of its end: a program could tell a few bits by how long it takes. An outcome (scored, or one of
  nine reasons) tells about three bits more. Quotas bound how often. Organisers see exact times and outcomes of
  every run.
* **What scores and releases are made to tell.** A defense may encode training rows in its answers; to find that is
  what attacks are for. Answers are rounded to four decimals, and asked for once.
* **How much a web server asks.** An attack that is one may ask a defense about rows while it runs, and chooses how
  many: its team sees that in quarters of the challenge's budget, which is 2.3 bits for each defense that it meets.
* **What the machine shows on runc:** its kernel's version, uptime, boot id, load and number of processors, and the
  random name of the run's volume. It is the same for all runs, and there is no way to send it. On gVisor most of it
  is made up.
* **The engine, the registry and the server's operators** are trusted, and so is the base image.
* **A GPU's own isolation.** No case here could try one: this machine has none.
"""


def results_of(performances: list[Performance], last: dict[str, str]) -> dict[str, Any]:
    """What a play has shown, in a form that can be stored."""
    found: dict[str, Any] = {"runtimes": {}, "end": last}
    for one in performances:
        found["runtimes"][one.runtime] = {
            "seconds": round(one.seconds),
            "aftermath": one.aftermath,
            "cases": {
                name: {"held": seen.held, "outcome": str(seen.outcome), "complaints": seen.complaints}
                for name, seen in one.seen.items()
            },
        }
    return found


def document(results: dict[str, Any]) -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_summary(results), *_groups(results), *_mutations(results), NOT_COVERED])


def _summary(results: dict[str, Any]) -> Iterator[str]:
    yield "## The result\n"
    yield f"{len(CASES)} cases, {_machine()}{_parts(results)}.\n"
    yield "| | " + " | ".join(NAMES[name] for name in results["runtimes"]) + " |"
    yield "| --- |" + " --- |" * len(results["runtimes"])
    runtimes = results["runtimes"].values()
    held = (f"{sum(case['held'] for case in one['cases'].values())} of {len(one['cases'])}" for one in runtimes)
    yield "| cases that ended as expected | " + " | ".join(held) + " |"
    for sentence in dict.fromkeys(sentence for one in runtimes for sentence in one["aftermath"]):
        answers = (_answer(one["aftermath"].get(sentence)) for one in runtimes)
        yield f"| {sentence} | " + " | ".join(answers) + " |"
    for sentence, trouble in results["end"].items():
        yield f"| {sentence} |" + f" {'no' if trouble else 'yes'} |" * len(results["runtimes"])
    yield "| seconds | " + " | ".join(str(one["seconds"]) for one in runtimes) + " |\n"


def _answer(trouble: str | None) -> str:
    return "not looked at" if trouble is None else "no" if trouble else "yes"


def _parts(results: dict[str, Any]) -> str:
    count = results.get("parts", 1)
    return f", put together from {count} runs of parts of them" if count > 1 else ""


def _machine() -> str:
    info = docker.from_env().version()
    return f"on Docker Engine {info['Version']}, Linux {platform.release().split('-')[0]}, {platform.machine()}"


def _groups(results: dict[str, Any]) -> Iterator[str]:
    for group, title in GROUPS.items():
        yield f"## {title}\n"
        if group == "archives":
            yield "Most archives are refused before an engine sees them: no container, so no difference of runtimes.\n"
        yield (
            "| case | what it tries | what stops it | ends | "
            + " | ".join(NAMES[n] for n in results["runtimes"])
            + " |"
        )
        yield "| --- | --- | --- | --- |" + " --- |" * len(results["runtimes"])
        for case in CASES:
            if case.group == group:
                verdicts = (_verdict(case, runtime, results) for runtime in results["runtimes"])
                yield _row(f"`{case.id}`", case.tries, case.stops, str(case.expected), *verdicts)
        yield ""


def _verdict(case: Case, runtime: str, results: dict[str, Any]) -> str:
    seen = results["runtimes"][runtime]["cases"].get(case.id)
    if seen is None:
        return "not run" if case.program else "no container"
    other = seen["outcome"] != str(case.expected) and seen["held"]
    return ("held" if seen["held"] else "**failed**") + (f" ({seen['outcome']})" if other else "")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells) + " |"


def _mutations(results: dict[str, Any]) -> Iterator[str]:
    yield "## Without a protection\n"
    yield (
        "A test that cannot fail proves nothing. So each protection was taken away on its own, from the request to\n"
        "the engine, and the same images were run and judged again (`make hostile ARGS=--mutations`):\n"
    )
    yield "| protection removed | cases that notice it |\n| --- | --- |"
    for mutation in MUTATIONS:
        noticed = results.get("mutations", {}).get(mutation.name)
        shown = "not run" if noticed is None else ", ".join(f"`{case}`" for case in noticed) or "**nobody**"
        yield _row(mutation.protection, shown)
    yield (
        "\nSome protections stand behind others, and are seen from inside alone: nosuid and nodev on /tmp and /output\n"
        "in the list of mounts (no-new-privileges and the lack of MKNOD hold already), swap in the control group (a\n"
        "machine without swap has none to give), NVIDIA_VISIBLE_DEVICES in the environment (nobody reads it where the\n"
        "toolkit is missing).\n"
    )


def merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Several runs' results as one: the later one counts."""
    played = sum("runtimes" in part for part in parts)
    whole: dict[str, Any] = {"runtimes": {}, "end": {}, "mutations": {}, "parts": played}
    for part in parts:
        whole["end"] |= part.get("end", {})
        whole["mutations"] |= part.get("mutations", {})
        for runtime, seen in part.get("runtimes", {}).items():
            earlier = whole["runtimes"].setdefault(runtime, {"cases": {}, "aftermath": {}, "seconds": 0})
            earlier["cases"] |= seen["cases"]
            earlier["aftermath"] |= seen["aftermath"]
            earlier["seconds"] += seen["seconds"]
    return whole


def write(results: dict[str, Any]) -> None:
    """Rewrites the page."""
    DOCUMENT.write_text(document(results), encoding="utf-8")


if __name__ == "__main__":
    write(merge([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))
