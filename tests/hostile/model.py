"""A hostile case as data, and the one judgement over what came of it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SYNTHETIC, ANONYMISED = "clinic-invented", "clinic-anonymised"  # challenges in which tables are released
GROUPS = {
    "network": "Network",
    "kernel": "Kernel surface",
    "resources": "Resources",
    "outputs": "Outputs",
    "tables": "Released tables and guesses",
    "web": "Web servers",
    "archives": "Archives",
    "channels": "Covert channels",
}


@dataclass(frozen=True)
class Outcome:
    """How an entry must end: its state, and the reason (and cause) that its failure has in the API."""

    state: str
    reason: str = ""
    cause: str = ""
    says: str = ""  # part of the sentence that the participant reads

    def __str__(self) -> str:
        return " ".join(part for part in (self.state, self.cause or self.reason) if part) + (
            " on private data" if self.state == "failed" and not self.cause and self.reason != "image_invalid" else ""
        )

    def fits(self, other: "Outcome") -> bool:
        same = (self.state, self.reason, self.cause) == (other.state, other.reason, other.cause)
        return same and self.says in other.says


SCORED = Outcome("scored")


def rehearsal(cause: str, says: str = "") -> Outcome:
    """It fails on the public sample already."""
    return Outcome("failed", "rehearsal_failed", cause, says)


def private(reason: str, says: str = "") -> Outcome:
    """It behaves on the public sample, and fails on private data."""
    return Outcome("failed", reason, says=says)


def refused(says: str) -> Outcome:
    """The archive is refused before any engine sees it, with this in the sentence."""
    return Outcome("failed", "image_invalid", says=says)


AT_THE_DOOR = Outcome("refused")  # the API does not even take it


@dataclass(frozen=True)
class Case:
    """One thing that a stranger may try.

    `program` is the image's own, above tests/hostile/inside.py; `archive` writes a whole archive instead. `emulated`
    are facts that gVisor grants within its own kernel, where they harm nobody. `walls` are the protections, by the
    names of tests/hostile/mutations.py, whose absence this case notices.
    """

    id: str
    group: str
    tries: str
    stops: str
    program: str = ""
    archive: Callable[[Path, Any], Path] | None = None
    expected: Outcome = SCORED
    gvisor: tuple[Outcome, ...] = ()  # how it may end there, where that differs
    kind: str = "attack"
    game: str = ""  # the slug of the challenge that it is entered into; by default that of its kind
    walls: tuple[str, ...] = ()
    emulated: tuple[str, ...] = ()
    silent: bool = False  # it cannot tell anything: it does not start, or is stopped before
    config: dict[str, Any] = field(default_factory=dict)  # of the image
    files: tuple[Any, ...] = ()  # more members of the image's layer
    check: Callable[[Any], list[str]] | None = None  # what else must hold afterwards, of an `Entry`

    def expects(self, runtime: str) -> tuple[Outcome, ...]:
        """How it may end; the first is the usual way."""
        return self.gvisor if runtime == "gvisor" and self.gvisor else (self.expected,)


@dataclass
class Seen:
    """What came of a case in one runtime."""

    outcome: Outcome
    logs: dict[str, str] = field(default_factory=dict)  # "rehearsal" and "private": what the containers printed
    complaints: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return not self.complaints


def facts_in(log: str, case: str) -> list[dict[str, Any]]:
    """The lines that the case's program wrote, among whatever else is in the log."""
    found = []
    for line in log.splitlines():
        if line.startswith('{"case"'):
            try:
                fact = json.loads(line)
            except ValueError:
                continue
            if fact.get("case") == case:
                found.append(fact)
    return found


def judge(case: Case, seen: Seen, runtime: str, logs: Iterable[str] | None = None) -> list[str]:
    """What went otherwise than expected; empty if the case held."""
    complaints = []
    expected = case.expects(runtime)
    if not any(one.fits(seen.outcome) for one in expected):
        wanted = " or ".join(f"{one} ({one.says})" for one in expected)
        complaints.append(f"ended {seen.outcome} ({seen.outcome.says}), expected {wanted}")
    for phase in logs if logs is not None else seen.logs:
        complaints += [f"{phase}: {text}" for text in breaches(case, seen.logs[phase], runtime)]
    return complaints


def breaches(case: Case, log: str, runtime: str) -> list[str]:
    """What the program could do and should not; also that it told nothing at all."""
    facts = facts_in(log, case.id)
    if not facts and not case.silent:
        return ["the program told nothing"]
    allowed = case.emulated if runtime == "gvisor" else ()
    return [f"{fact['fact']}: {fact['got']}" for fact in facts if not fact["held"] and fact["fact"] not in allowed]
