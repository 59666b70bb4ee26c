"""One try of one run on one engine: from its inputs to the verdict about its outputs."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import structlog
from django.db import connection

from sandbox import adoption, devices, gpus, isolation, leases, outputs, purposes, walls
from sandbox.chambers import chambers
from sandbox.conf import conf
from sandbox.engine import Chamber, Ending, Engine, EngineFault, NotThere, labels_of
from sandbox.hosts import engine_of
from sandbox.models import Image, Run
from sandbox.offers import Wall
from sandbox.placement import Place, placed
from sandbox.purposes import Question, Reader
from sandbox.reasons import Reason, Rejected, gettext_noop
from sandbox.renewal import Lease
from sandbox.supply import supply
from sandbox.troubles import insist

log = structlog.get_logger(__name__)

STOP_SECONDS = 20  # a killed container ends within a tenth of a second; later, the engine is in trouble
KEPT_BYTES = 16 * walls.MEGABYTE  # outputs live in the host's memory until their holder goes


class End(Protocol):
    """Writes down how a run has ended."""

    def __call__(self, run: Run, reason: Reason | None, detail: str, verdict: Any = None, **facts: Any) -> None: ...


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
    question: Question | None = None  # what it answers, if it is a run inside another: then that one's books are kept
    asked: Path = Path()  # the file that was asked
    timings: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _chambers: list[Chamber] = field(default_factory=list)
    _containers: list[str] = field(default_factory=list)
    _engine: Engine | None = None
    _spent: bool = True  # whether what the run wrote is too much to keep until the chambers beside it are used

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Notes the milliseconds that a stage takes, each time that there is one of that name."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = self.timings.get(name, 0.0) + (time.perf_counter() - begun) * 1000
            self.timings[name] = round(spent, 1)

    @property
    def scratch(self) -> Path:
        """Where it works."""
        return self.asked.with_suffix("") if self.question else self.run.scratch

    def drive(self, end: End) -> None:
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
                        self.execute(place, lease, facts)
                    if self.run.gpus:  # needed to tell whether they were lost
                        leases.vacate(self.run)
                    verdict = self._judge()
                except Rejected as rejected:
                    reason, detail = rejected.reason, rejected.detail
                    verdict = self._account(place.engine)
                lease.check()
            if lease.peak_memory:
                facts["peak_memory_mb"] = -(-lease.peak_memory // walls.MEGABYTE)
            with self.stage("finish"):
                write = partial(end, self.run, reason, detail, verdict, timings=self.timings, **facts)
                insist(write, while_=lambda: not lease.lost.is_set())
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
        return bool(self._chambers)

    @property
    def engine_was_restarted(self) -> bool:
        """Whether the engine hung up while this attempt waited for its container."""
        return self._engine is not None and self._engine.cut_at > self.began

    def clear(self) -> None:
        """Removes the containers, volumes and working files of this attempt, beside the next run's work."""
        pool = chambers()
        if self._engine is not None and self._chambers:
            pool.discard(self._engine, self._chambers, self._containers, spent=self._spent)
        pool.background(leases.remove_scratch, self.scratch)

    def execute(self, place: Place, lease: Lease, facts: dict[str, Any]) -> None:
        """Runs the container and collects its outputs. Raises `Rejected` if it did not do its work."""
        run, pool, engine = self.run, chambers(), place.engine
        self._engine = engine
        folders = self._folders()
        adopted = self._adopt(engine) if run.attempt > 1 and not self.question else None
        if adopted is not None:
            self._chambers.append(adopted.chamber)
            container = adopted.container
            self._containers.append(container)
            lease.watch(container)
        else:
            container = self._start(engine, lease, folders["input"])
        shutil.rmtree(folders["input"])
        if not self.question:
            pool.prepare(engine, run.wants.output_mb)
        with self.stage("container"):
            in_time = self._wait(place, lease, container, adopted.seconds if adopted else 0)
        lease.check()
        self._vacate()
        with self.stage("collect"):
            written = pool.background(self._write_log, engine, container)
            try:
                ending = self._ending(engine, container)
                facts.update(exit_code=ending.exit_code, seconds=ending.seconds)
                if adopted is not None and ending.seconds > run.wants.seconds + 1:
                    in_time = False  # it ended by itself, but nobody was there to stop it in time
                self._check(ending, in_time)
                self._collect(engine, ending)
            except Rejected:
                spent, self._spent = self._spent, True  # a holder that has ended is of no use to anybody
                for chamber in self._chambers:
                    engine.check_held(chamber)
                self._spent = spent
                raise
            finally:
                written.result()

    def _adopt(self, engine: Engine) -> adoption.Adopted | None:
        """The container of the attempt before this one; if it will not do, all that is left is removed."""
        return adoption.adopt(engine, self.run, self._config)

    def _vacate(self) -> None:
        """Its container has ended: the next run's may start while the outputs are collected."""
        if not self.run.gpus and not self.question:
            leases.vacate(self.run)

    def _write_log(self, engine: Engine, container: str) -> None:
        engine.log(container, self.scratch / "log.txt", conf().log_bytes)

    def _ending(self, engine: Engine, container: str) -> Ending:
        return engine.ending(container)

    def _start(self, engine: Engine, lease: Lease, inputs: Path) -> str:
        """A new container at work in a chamber of its own."""
        pool = chambers()
        [chamber] = self._take_chambers(engine, 1)
        with self.stage("create"):
            filled = pool.background(self._fill, engine, chamber, inputs)
            try:
                container = self._create(engine, chamber, self._config(chamber), self.run.image)
            finally:
                filled.result()
        lease.check()
        with self.stage("start"):
            engine.start(container)
            lease.watch(container, measured=not self.question)
        return container

    def _take_chambers(self, engine: Engine, count: int) -> list[Chamber]:
        """Those of a question are its own: there may be many before the run is over, and each takes memory."""
        pool, output_mb = chambers(), self.run.wants.output_mb
        with self.stage("chamber"):
            if self.question:
                self._chambers += pool.take_apart(engine, output_mb, count)
            else:
                for _ in range(count):
                    self._chambers.append(pool.take(engine, output_mb))
        return self._chambers[-count:]

    def _fill(self, engine: Engine, chamber: Chamber, inputs: Path) -> None:
        """Writes the run's inputs and copies them into its chamber, beside the creation of its container."""
        try:
            with self.stage("inputs"):
                self._write_inputs(inputs)
            engine.put(chamber, inputs)
        finally:
            connection.close()

    def _write_inputs(self, folder: Path) -> None:
        if self.question:
            in_child(self.question.write(self.asked, folder))
        else:
            purposes.get(self.run.purpose).write_inputs(self.run, folder)

    def _folders(self) -> dict[str, Path]:
        """The attempt's empty working folders."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        folders = {name: self.scratch / name for name in ("input", "output", "result")}
        for folder in folders.values():
            folder.mkdir(mode=0o700, parents=True)
        return folders

    @cached_property
    def _leased(self) -> list[str]:
        """The UUIDs of the GPUs that came with the lease."""
        has_some = self.run.gpus and not self.question
        return sorted(self.run.leased_gpus.values_list("uuid", flat=True)) if has_some else []

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
            hosts=chamber.hosts,
            conf=conf(),
            demanded=run.walls,
            cdi=devices.by_cdi(run.host.engine if run.host else {}),
            covered=run.image.config.get("volumes", ()),
        )

    def _create(self, engine: Engine, chamber: Chamber, config: dict[str, Any], image: Image, name: str = "") -> str:
        """A container of this attempt in that chamber, not started; `name` tells it from the attempt's first one."""
        run = self.run
        labels = labels_of(str(run.pk), run.attempt, chambers().worker, chamber, config)
        if not name:
            gpus.evict(engine, self._leased)
            labels |= {gpus.label(gpu): "" for gpu in self._leased}
        if self.question:
            name = f"question{self.asked.stem}{name}"
        if name:
            name = f"{run.pk}-{name}-{run.attempt}"
        try:
            container = engine.create(config, labels, name)
        except NotThere:
            with self.stage("load"):
                assert run.host is not None  # it came with the lease
                supply(run.host, image)
            container = engine.create(config, labels, name)
        self._containers.append(container)
        return container

    def _wait(self, place: Place, lease: Lease, container: str, spent: float) -> bool:
        """Whether it ended in time, of which it has `spent` some seconds. Afterwards it does not run any more."""
        engine, deadline = place.engine, time.monotonic() + max(1, self.run.wants.seconds - spent)
        while (left := deadline - time.monotonic()) > 0:
            if engine.wait(container, min(left, place.check_seconds)):
                return True
            place.check()
        stop(engine, container)
        return False

    def _check(self, ending: Ending, in_time: bool) -> None:
        """Raises `Rejected` if it was stopped, by us or by the kernel."""
        if not in_time:
            text = gettext_noop("It was stopped after %(limit)d seconds.")
            raise Rejected(Reason.TIMEOUT, text % {"limit": self.run.wants.seconds})
        # gVisor is ended as a whole, sometimes before the engine has made its mark: nobody else ends it so
        killed_whole = Wall.GVISOR in self.run.walls and ending.exit_code == adoption.KILLED
        if ending.out_of_memory or killed_whole:  # also when a child was killed and its parent said that all was well
            text = gettext_noop("It may use %(limit)d MB.")
            raise Rejected(Reason.OUT_OF_MEMORY, text % {"limit": self.run.wants.memory_mb})

    def _collect(self, engine: Engine, ending: Ending) -> None:
        bounds = self._bounds
        with engine.outputs(self._chambers[0], ending.at) as stream:
            pieces = Counted(stream)
            if ending.exit_code:
                outputs.measure(pieces, **bounds)
                self._spent = pieces.size > KEPT_BYTES
                raise Rejected(
                    Reason.CRASHED, gettext_noop("Its exit status was %(code)d.") % {"code": ending.exit_code}
                )
            wanted = outputs.Wanted.from_json(self.run.collect)
            try:
                outputs.collect(pieces, wanted, self.scratch / "output", **bounds)
            except Rejected as rejected:
                if rejected.reason == Reason.OUTPUT_MISSING:  # which is told after all has been read
                    self._spent = pieces.size > KEPT_BYTES
                raise
        self._spent = pieces.size > KEPT_BYTES

    @property
    def _bounds(self) -> dict[str, int]:
        return {"output_mb": self.run.wants.output_mb, "inodes": conf().inodes}

    def _account(self, engine: Engine) -> Any:
        """What is to be told of a run that failed, beside its reason."""
        return None

    def _judge(self) -> Any:
        """Reads the outputs in an isolated child, then lets the purpose compute what they are worth."""
        run = self.run
        purpose = purposes.get(run.purpose)
        result = self.scratch / "result"
        read: dict[str, Any] = {}
        with self.stage("read"):
            reader = purpose.reader(run, self.scratch / "output", result)
            if reader is not None:
                read = in_child(reader)
        with self.stage("judge"):
            return purpose.judge(run, result, read)


def in_child(reader: Reader) -> dict[str, Any]:
    """What hostile files say, read in an isolated child. Raises `Rejected`."""
    function, args = reader
    read: dict[str, Any] = isolation.call(function, *args, seconds=conf().read_seconds, memory_mb=conf().read_memory_mb)
    return read


def stop(engine: Engine, container: str) -> None:
    """Ends it at once, and waits until it has."""
    engine.kill(container)
    engine.wait(container, STOP_SECONDS)
