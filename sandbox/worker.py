"""Driving runs: claim, drive, finish. What a wake-up does.

One process drives one run at a time. A second thread renews the lease and stops the container when the run was
cancelled or taken over; a few more prepare the next chamber and remove used ones.
"""

import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import structlog
from django.db import connection

from sandbox import adoption, devices, gpus, isolation, leases, outputs, purposes, tasks, walls
from sandbox.chambers import Chambers, chambers
from sandbox.conf import conf
from sandbox.engine import Chamber, Ending, Engine, EngineFault, NotThere, Restarted, Unreachable, labels_of
from sandbox.hosts import engine_of
from sandbox.models import Run
from sandbox.offers import Wall
from sandbox.placement import NoRoom, Place, placed
from sandbox.reasons import Reason, Rejected, gettext_noop
from sandbox.renewal import Lease, Superseded
from sandbox.supply import supply
from sandbox.troubles import insist, will_pass
from sandbox.workers import alone, listen

log = structlog.get_logger(__name__)

LINE_SECONDS = 0.1  # between two looks for a free slot that nobody rings for: of one worker, and cheap
STOP_SECONDS = 20  # a killed container ends within a tenth of a second; later, the engine is in trouble

KEPT_BYTES = 16 * walls.MEGABYTE  # outputs live in the host's memory until their holder goes


def work() -> int:
    """Drives due runs one after the other; returns how many.

    Ends when none is left that it could take. While all slots are in use it stands in line: a cluster has one worker
    more than slots, so that a slot does not wait for the reading of the last run's outputs. After a while it also ends,
    and sends a wake-up for the rest, so that the cluster can stop or renew its process.
    """
    started = time.monotonic()
    driven = 0
    while time.monotonic() - started < conf().work_seconds:
        run = leases.claim(chambers().worker)
        if run is not None:
            drive(run)
            driven += 1
        elif not _stand_in_line(until=started + conf().work_seconds):
            return driven
    tasks.send_wakeup()
    return driven


def _stand_in_line(until: float) -> bool:
    """Waits for a free slot, if that is what runs wait for; False if there is nothing to wait for.

    One worker of a machine is enough: the others go back to the queue, and are woken.
    """
    waited = False
    with alone("line") as first:
        while first and time.monotonic() < until and leases.line_up():
            waited = True
            listen(LINE_SECONDS)
    return waited


def drive(run: Run) -> None:
    """Takes a claimed run to its end, whatever happens; or gives it back after a fault of the platform."""
    with structlog.contextvars.bound_contextvars(**run.log_data()):
        if run.lost_leases > conf().max_lost_leases:
            _end(run, Reason.PLATFORM_FAULT, gettext_noop("Its workers ended again and again before it did."))
            return
        attempt = Attempt(run)
        try:
            attempt.drive()
        except Superseded:
            log.info("run.superseded")
        except Exception as error:
            _patiently(partial(_fault, attempt, error))
        finally:
            attempt.clear()
            _patiently(partial(leases.release, run))


def _patiently(write: Callable[[], Any]) -> None:
    """Writes to the books, if need be later. If they stay closed, somebody takes the run when its lease has ended."""
    until = time.monotonic() + conf().lease_seconds
    try:
        insist(write, while_=lambda: time.monotonic() < until)
    except Exception as error:
        if not will_pass(error):
            raise
        log.warning("run.left", **_place_of(error))


def _fault(attempt: "Attempt", error: Exception) -> None:
    run = attempt.run
    unreachable = isinstance(error, Unreachable)
    passing = will_pass(error) or isinstance(error, NoRoom)
    place = _place_of(error)
    log.warning("run.fault", faults=run.faults, **place)
    # an engine knows no values of the data; the message of any other error may quote them
    detail = f"{place['error']}: {error if isinstance(error, EngineFault) else ', '.join(place['where'])}"
    counts = not (unreachable or passing or isinstance(error, Restarted) or attempt.engine_was_restarted)
    # nobody is to blame for an engine that fell under a run; but one that takes each engine down must end too
    lost = not (counts or passing) and attempt.engine_served
    if (counts and run.faults + 1 >= conf().max_faults) or (lost and run.lost_leases >= conf().max_lost_leases):
        _end(run, Reason.PLATFORM_FAULT, detail)
    else:
        rest = conf().retry_seconds if passing else 0
        leases.give_back(run, detail=detail, counts=counts, lost=lost, rest=rest, avoid_host=unreachable)


def _place_of(error: Exception) -> dict[str, Any]:
    """What an error was and where; without its message, which may quote what was read."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return {"error": type(error).__name__, "where": [f"{frame.filename}:{frame.lineno}" for frame in frames]}


def _end(run: Run, reason: Reason | None, detail: str, verdict: Any = None, **facts: Any) -> None:
    """Ends the run. If its purpose cannot settle a failure either, the run ends all the same."""
    try:
        ended = leases.finish(run, reason=reason, detail=detail, verdict=verdict, **facts)
    except Exception as error:
        if reason != Reason.PLATFORM_FAULT or will_pass(error):
            raise
        log.error("run.unsettled", **_place_of(error))
        ended = leases.give_up(run, f"{detail} ({type(error).__name__})")
    log.info("run.ended" if ended else "run.superseded", state=run.state, reason=run.reason, seconds=run.seconds)


class Counted:
    """The pieces of a stream, of which it is known afterwards how many bytes came."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.size = 0
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.size += len(piece)
            yield piece


@dataclass
class Attempt:
    """One try of one run on one engine."""

    run: Run
    timings: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _chamber: Chamber | None = None
    _containers: list[str] = field(default_factory=list)
    _engine: Engine | None = None
    _spent: bool = True  # whether what the run wrote is too much to keep until the chambers beside it are used

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Notes the milliseconds that a stage takes."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = round((time.perf_counter() - begun) * 1000, 1)

    def drive(self) -> None:
        """From the inputs to the verdict. Raises Superseded, EngineFault, or whatever a purpose of ours raises."""
        host = self.run.host
        if host is None:
            raise EngineFault("the host is gone")
        reason: Reason | None = None
        detail, verdict = "", None
        facts: dict[str, Any] = {}
        with Lease(self.run, engine_of(host)) as lease:
            with self.stage("total"), self._placed(lease) as place:
                try:
                    with gpus.needed(self.run):
                        self._execute(place, lease, facts)
                    if self.run.gpus:  # needed to tell whether they were lost
                        leases.vacate(self.run)
                    verdict = self._judge()
                except Rejected as rejected:
                    reason, detail = rejected.reason, rejected.detail
                lease.check()
            if lease.peak_memory:
                facts["peak_memory_mb"] = -(-lease.peak_memory // walls.MEGABYTE)
            with self.stage("finish"):
                end = partial(_end, self.run, reason, detail, verdict, timings=self.timings, **facts)
                insist(end, while_=lambda: not lease.lost.is_set())
        log.info("run.timings", **self.timings)

    @contextmanager
    def _placed(self, lease: Lease) -> Iterator[Place]:
        """Where there is room for the run."""
        with ExitStack() as stack:
            with self.stage("place"):
                place = stack.enter_context(placed(self.run, lease.check))
            self._engine = place.engine
            lease.move_to(place.engine)
            yield place

    @property
    def engine_served(self) -> bool:
        """Whether the engine was well when the run's own work on it began."""
        return self._chamber is not None

    @property
    def engine_was_restarted(self) -> bool:
        """Whether the engine hung up while this attempt waited for its container."""
        return self._engine is not None and self._engine.cut_at > self.began

    def clear(self) -> None:
        """Removes the containers, volumes and working files of this attempt, beside the next run's work."""
        pool = chambers()
        if self._engine is not None and self._chamber is not None:
            pool.discard(self._engine, self._chamber, self._containers, spent=self._spent)
        pool.background(leases.remove_scratch, self.run.scratch)

    def _execute(self, place: Place, lease: Lease, facts: dict[str, Any]) -> None:
        """Runs the container and collects its outputs. Raises `Rejected` if it did not do its work."""
        run, pool, engine = self.run, chambers(), place.engine
        folders = self._folders()
        adopted = adoption.adopt(engine, run, self._config) if run.attempt > 1 else None
        if adopted is not None:
            self._chamber, container = adopted.chamber, adopted.container
            chamber = self._chamber
            self._containers.append(container)
            lease.watch(container)
        else:
            chamber, container = self._start(engine, lease, folders["input"])
        shutil.rmtree(folders["input"])
        pool.prepare(engine, run.wants.output_mb)
        with self.stage("container"):
            in_time = self._wait(place, container, adopted.seconds if adopted else 0)
        lease.check()
        if not run.gpus:
            leases.vacate(run)  # its container has ended: the next one may start while the outputs are collected
        with self.stage("collect"):
            written = pool.background(engine.log, container, run.scratch / "log.txt", conf().log_bytes)
            try:
                ending = engine.ending(container)
                facts.update(exit_code=ending.exit_code, seconds=ending.seconds)
                if adopted is not None and ending.seconds > run.wants.seconds + 1:
                    in_time = False  # it ended by itself, but nobody was there to stop it in time
                self._collect(engine, chamber, ending, in_time)
            except Rejected:
                spent, self._spent = self._spent, True  # a holder that has ended is of no use to anybody
                engine.check_held(chamber)
                self._spent = spent
                raise
            finally:
                written.result()

    def _start(self, engine: Engine, lease: Lease, inputs: Path) -> tuple[Chamber, str]:
        """A new container at work in a chamber of its own."""
        run, pool = self.run, chambers()
        with self.stage("chamber"):
            self._chamber = chamber = pool.take(engine, run.wants.output_mb)
        with self.stage("create"):
            filled = pool.background(self._fill, engine, chamber, inputs)
            try:
                container = self._create(engine, chamber, pool)
                self._containers.append(container)
            finally:
                filled.result()
        lease.check()
        with self.stage("start"):
            engine.start(container)
            lease.watch(container)
        return chamber, container

    def _fill(self, engine: Engine, chamber: Chamber, inputs: Path) -> None:
        """Writes the run's inputs and copies them into its chamber, beside the creation of its container."""
        try:
            with self.stage("inputs"):
                purposes.get(self.run.purpose).write_inputs(self.run, inputs)
            engine.put(chamber, inputs)
        finally:
            connection.close()

    def _folders(self) -> dict[str, Path]:
        """The attempt's empty working folders."""
        shutil.rmtree(self.run.scratch, ignore_errors=True)
        folders = {name: self.run.scratch / name for name in ("input", "output", "result")}
        for folder in folders.values():
            folder.mkdir(mode=0o700, parents=True)
        return folders

    @cached_property
    def _leased(self) -> list[str]:
        """The UUIDs of the GPUs that came with the lease."""
        return sorted(self.run.leased_gpus.values_list("uuid", flat=True)) if self.run.gpus else []

    def _config(self, chamber: Chamber) -> dict[str, Any]:
        """The options of this run's container in that chamber."""
        run = self.run
        return walls.container(
            image_id=run.image.image_id,
            step=run.step,
            limits=run.wants,
            gpus=self._leased,
            inputs=chamber.inputs,
            outputs=chamber.outputs,
            conf=conf(),
            demanded=run.walls,
            cdi=devices.by_cdi(run.host.engine if run.host else {}),
        )

    def _create(self, engine: Engine, chamber: Chamber, pool: Chambers) -> str:
        run = self.run
        config = self._config(chamber)
        leased = self._leased
        gpus.evict(engine, leased)
        labels = labels_of(str(run.pk), run.attempt, pool.worker, chamber, config)
        labels |= {gpus.label(gpu): "" for gpu in leased}
        try:
            return engine.create(config, labels)
        except NotThere:
            with self.stage("load"):
                assert run.host is not None  # it came with the lease
                supply(run.host, run.image)
            return engine.create(config, labels)

    def _wait(self, place: Place, container: str, spent: float) -> bool:
        """Whether it ended in time, of which it has `spent` some seconds. Afterwards it does not run any more."""
        engine, deadline = place.engine, time.monotonic() + max(1, self.run.wants.seconds - spent)
        while (left := deadline - time.monotonic()) > 0:
            if engine.wait(container, min(left, place.check_seconds)):
                return True
            place.check()
        engine.kill(container)
        engine.wait(container, STOP_SECONDS)
        return False

    def _collect(self, engine: Engine, chamber: Chamber, ending: Ending, in_time: bool) -> None:
        if not in_time:
            text = gettext_noop("It was stopped after %(limit)d seconds.")
            raise Rejected(Reason.TIMEOUT, text % {"limit": self.run.wants.seconds})
        # gVisor is ended as a whole, sometimes before the engine has made its mark: nobody else ends it so
        killed_whole = Wall.GVISOR in self.run.walls and ending.exit_code == adoption.KILLED
        if ending.out_of_memory or killed_whole:  # also when a child was killed and its parent said that all was well
            text = gettext_noop("It may use %(limit)d MB.")
            raise Rejected(Reason.OUT_OF_MEMORY, text % {"limit": self.run.wants.memory_mb})
        bounds = {"output_mb": self.run.wants.output_mb, "inodes": conf().inodes}
        with engine.outputs(chamber, ending.at) as stream:
            pieces = Counted(stream)
            if ending.exit_code:
                outputs.measure(pieces, **bounds)
                self._spent = pieces.size > KEPT_BYTES
                raise Rejected(
                    Reason.CRASHED, gettext_noop("Its exit status was %(code)d.") % {"code": ending.exit_code}
                )
            wanted = outputs.Wanted.from_json(self.run.collect)
            try:
                outputs.collect(pieces, wanted, self.run.scratch / "output", **bounds)
            except Rejected as rejected:
                if rejected.reason == Reason.OUTPUT_MISSING:  # which is told after all has been read
                    self._spent = pieces.size > KEPT_BYTES
                raise
        self._spent = pieces.size > KEPT_BYTES

    def _judge(self) -> Any:
        """Reads the outputs in an isolated child, then lets the purpose compute what they are worth."""
        run, settings = self.run, conf()
        purpose = purposes.get(run.purpose)
        result = run.scratch / "result"
        read: dict[str, Any] = {}
        with self.stage("read"):
            reader = purpose.reader(run, run.scratch / "output", result)
            if reader is not None:
                function, args = reader
                read = isolation.call(function, *args, seconds=settings.read_seconds, memory_mb=settings.read_memory_mb)
        with self.stage("judge"):
            return purpose.judge(run, result, read)
