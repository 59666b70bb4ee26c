"""Finals as they are played: who is in, which runs that means, how far they are, what the reveal brings.

Until the organisers reveal a final, nothing of it may be known to teams and the public (SCORING 4): its runs change no
state of an entry, no row of a board and no version of a challenge. What became of them is read from the runs here.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db.models import F, OuterRef, Subquery
from django.utils import timezone

from challenges.finals import Cell, Entrant, Progress, Row, RunState, Trouble
from challenges.models import Challenge, Phase
from sandbox.models import Run
from sandbox.reasons import Reason
from submissions import actions, flow, standings, steps
from submissions.models import Duel, Release, Standing, Step, Submission, Team
from submissions.states import READY, State

_Place = tuple[UUID, int]  # a defense and a seed


class Conductor:
    """What the organisers' pages ask of finals: see `challenges.finals.Conductor`."""

    def freeze(self, final: Phase) -> None:
        pick_for_the_silent(final)
        play(final)

    def progress(self, final: Phase) -> Progress:
        return _Picture(final).progress()

    def repeat_faults(self, final: Phase) -> int:
        return repeat_faults(final)

    def give_up_faults(self, final: Phase, *, reason: str, by: Any) -> None:
        for duel in _spoilt(final):
            duel.refresh_from_db()
            if not duel.void_reason:  # else it went with another seed of the same pairing
                actions.void_duel(duel=duel, reason=reason, by=by)

    def reveal(self, final: Phase) -> None:
        reveal(final)


def pick_for_the_silent(final: Phase) -> None:
    """Picks for each team that has picked nothing of a kind its best active entries on the present board."""
    challenge = final.challenge
    entries = Submission.objects.active().filter(challenge=challenge, role=Submission.Role.ENTRY)
    for kind in Submission.Kind.values:
        spoken = Submission.objects.filter(challenge=challenge, kind=kind, picked=True).values("team")
        best: dict[int | None, list[UUID]] = defaultdict(list)
        for entry in _best_first(entries.filter(kind=kind).exclude(team__in=spoken), challenge):
            best[entry.team_id].append(entry.pk)
        chosen = [pk for mine in best.values() for pk in mine[: challenge.active_limit]]
        Submission.objects.filter(pk__in=chosen).update(picked=True)


def _best_first(entries: Iterable[Submission], challenge: Challenge) -> list[Submission]:
    score = Standing.objects.filter(submission=OuterRef("pk"), phase=challenge.development).values("public_score")
    scored = Submission.objects.filter(pk__in=[entry.pk for entry in entries]).annotate(shown=Subquery(score))
    return list(scored.order_by(F("shown").desc(nulls_last=True), "created_at"))


def is_under_way(final: Phase) -> bool:
    """Whether its runs may go: it is settled who is in, and the day has come."""
    return final.is_frozen and final.opens_at is not None and final.opens_at <= timezone.now()


def play(final: Phase) -> None:
    """Queues the first run of every defense and seed that has none yet; duels follow releases. Joins a transaction."""
    if not is_under_way(final):
        return
    begun = set(Step.objects.filter(phase=final, duel=None).values_list("submission", "seed"))
    for defense in Submission.objects.playing(final).defenses().select_related("challenge", "image"):
        for seed in range(final.seeds):
            if (defense.pk, seed) not in begun:
                steps.queue_release(defense, steps.names(defense)[0], final, seed)


def repeat_faults(final: Phase) -> int:
    """Queues every run of a final once more that the platform spoilt; returns how many."""
    picture = _Picture(final)
    spoilt = [step for place, step in picture.last.items() if picture.alone(*place) == "fault"]
    for step in spoilt:
        steps.queue_release(step.submission, step.name, final, step.seed, previous=step.previous)
        step.delete()
    fought = _spoilt(final)
    for duel in fought:
        flow.fight_again(duel)
    return len(spoilt) + len(fought)


def _spoilt(final: Phase) -> list[Duel]:
    """The duels of a final that count and that a fault of the platform has ended."""
    sides = Submission.objects.taking_part(final)
    duels = Duel.objects.valid().filter(release__phase=final, attack__in=sides, release__submission__in=sides)
    faulted = duels.filter(state=Duel.State.FAILED, reason=Reason.PLATFORM_FAULT)
    return list(faulted.select_related("attack__challenge", "attack__image", "release__phase", "step"))


def reveal(final: Phase) -> None:
    """Works out the boards of a final, with a row for everybody who was in, and ends the wait of late entries."""
    playing = Submission.objects.playing(final)
    for entry in playing:
        Standing.objects.get_or_create(submission=entry, phase=final)
    standings.refresh_phase(final)
    for entry in playing.filter(state__in=[State.QUEUED, State.RUNNING]):
        flow.settle_late(entry)


def failures(final: Phase) -> dict[UUID, Reason]:
    """Why entries came to no result in a final: a defense must come through with every seed, an attack in one duel."""
    made = set(Release.objects.filter(phase=final).values_list("submission", "seed"))
    ended = Step.objects.filter(phase=final, duel=None, run__state=Run.State.FAILED).order_by("pk")
    found = {
        defense: Reason(reason)
        for defense, seed, reason in ended.values_list("submission", "seed", "run__reason")
        if (defense, seed) not in made
    }
    duels = Duel.objects.filter(release__phase=final).exclude(reason=Reason.PLATFORM_FAULT)
    outcomes: dict[UUID, list[str]] = defaultdict(list)
    for attack, reason in duels.order_by("pk").values_list("attack", "reason"):
        outcomes[attack].append(reason)
    return found | {attack: Reason(reasons[0]) for attack, reasons in outcomes.items() if all(reasons)}


@dataclass(frozen=True)
class Picks:
    """What a team has picked of one kind; if nothing, its best on the board goes in."""

    kind: str
    number: int
    most: int


def picks_of(team: Team) -> list[Picks]:
    """How many entries of each kind a team has picked, of how many."""
    mine = Submission.objects.of_team(team).filter(state__in=READY, picked=True)
    return [
        Picks(str(kind.label), mine.filter(kind=kind).count(), team.challenge.active_limit) for kind in Submission.Kind
    ]


class _Picture:
    """Every run of a final, looked up in a handful of queries."""

    _STATES: Final[dict[str, RunState]] = {Run.State.RUNNING: "running", Run.State.FAILED: "failed"}

    def __init__(self, final: Phase) -> None:
        self.final = final
        taking_part = Submission.objects.taking_part(final).select_related("team").order_by("created_at")
        self.defenses = list(taking_part.defenses())
        self.attacks = list(taking_part.attacks())
        made = Release.objects.filter(phase=final).values_list("submission", "seed")
        self.released: set[_Place] = set(made)
        alone = Step.objects.filter(phase=final, duel=None, submission__in=self.defenses).order_by("pk")
        self.last: dict[_Place, Step] = {
            (step.submission_id, step.seed): step
            for step in alone.select_related("run", "previous", "submission__challenge", "submission__image")
        }
        duels = Duel.objects.filter(release__phase=final, attack__in=self.attacks).select_related(
            "release", "step__run"
        )
        self.duels = {(duel.attack_id, duel.release.submission_id, duel.release.seed): duel for duel in duels}
        self.troubles: list[Trouble] = []

    def progress(self) -> Progress:
        entrants = {entry.pk: _entrant(entry) for entry in (*self.defenses, *self.attacks)}
        seeds = range(self.final.seeds)
        rows = []
        for defense in self.defenses:
            alone = tuple(self.alone(defense.pk, seed) for seed in seeds)
            self._note(alone, entrants[defense.pk], "", [self.last.get((defense.pk, seed)) for seed in seeds])
            duels: list[Cell | None] = []
            for attack in self.attacks:
                if attack.team_id is not None and attack.team_id == defense.team_id:
                    duels.append(None)
                    continue
                fought = [self.duels.get((attack.pk, defense.pk, seed)) for seed in seeds]
                states = tuple(_fought(duel, ran) for duel, ran in zip(fought, alone, strict=True))
                self._note(states, entrants[attack.pk], defense.name, [duel.step if duel else None for duel in fought])
                duels.append(Cell(states))
            rows.append(Row(entrants[defense.pk], Cell(alone), duels))
        late = Submission.objects.playing(self.final).filter(late=True, role=Submission.Role.ENTRY).count()
        return Progress([entrants[attack.pk] for attack in self.attacks], rows, self.troubles, late)

    def alone(self, defense: UUID, seed: int) -> RunState:
        """What became of a defense's own runs for one seed."""
        if (defense, seed) in self.released:
            return "done"
        step = self.last.get((defense, seed))
        if step is None:
            return "waiting"
        if step.run.state == Run.State.FAILED and step.run.reason == Reason.PLATFORM_FAULT:
            return "fault"
        return self._STATES.get(step.run.state, "waiting")

    def _note(self, states: Iterable[RunState], who: Entrant, against: str, ran: Iterable[Step | None]) -> None:
        for seed, (state, step) in enumerate(zip(states, ran, strict=True), start=1):
            if state in ("failed", "fault") and step is not None:
                reason = str(step.run.get_reason_display())
                self.troubles.append(Trouble(who, against, seed, reason, is_fault=state == "fault"))


def _fought(duel: Duel | None, alone: RunState) -> RunState:
    """What became of a duel, whose defense's own run is in that state."""
    if duel is None:
        return "never" if alone in ("failed", "fault") else "waiting"
    if duel.void_reason:
        return "void"
    if duel.state == Duel.State.DONE:
        return "done"
    if duel.state == Duel.State.FAILED:
        return "fault" if duel.reason == Reason.PLATFORM_FAULT else "failed"
    return "running" if duel.step.run.state == Run.State.RUNNING else "waiting"


def _entrant(entry: Submission) -> Entrant:
    owner = entry.team.name if entry.team else entry.get_role_display()
    return Entrant(entry.name, owner, entry.get_absolute_url())
