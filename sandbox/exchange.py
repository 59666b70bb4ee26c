"""A run of an image that is a web server: a gateway of ours joins its loopback and does all the talking (SANDBOX 4).

The server's container has neither network nor /input nor /output. What the run is to do stands in the gateway's
/input/plan.json (see `gateway.plan`); when the gateway ends, the exchange is over, and its /output is the run's.
What the server keeps at /persistent_data is the folder `model` of the inputs, before, and of the outputs, after.

While it goes on, the gateway may hand out questions that only another image can answer: a run inside the run.
"""

import copy
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import structlog

from sandbox import chambers, devices, exchange_report, outputs, purposes, walls
from sandbox.attempt import KEPT_BYTES, Attempt, Counted, in_child, stop
from sandbox.base_images import base_image
from sandbox.conf import conf
from sandbox.contracts import Contract
from sandbox.engine import Chamber, Ending, Engine, EngineFault, NotThere
from sandbox.gateway.answers import MOST_QUESTIONS
from sandbox.gateway.main import CALL_FAILED, NEVER_READY, NO_POST, PORT_TAKEN, TIME_OVER
from sandbox.limits import Limits
from sandbox.models import Run
from sandbox.placement import Place
from sandbox.purposes import Known, Question
from sandbox.reasons import Reason, Rejected, gettext_noop
from sandbox.renewal import Lease

log = structlog.get_logger(__name__)

PROGRAM = Path(__file__).parent / "gateway"
MODEL = "model"
GRACE_SECONDS = 2  # for the gateway, to say what it saw when the server has ended
PATIENCE = 0.5  # share of the time left that a question may take: else a silent defense would end each attack on it
QUESTION, ASKED = "ask ", "ask"  # a line of its standard output; the folder of its /output
LOOK_SECONDS = 1.0
WATCH_SECONDS = 30.0  # between looks whether a server is still worth watching
SOON_SECONDS = 0.5

_SENTENCES = {
    NEVER_READY: gettext_noop("Its server was never ready."),
    CALL_FAILED: gettext_noop("A call to its server failed."),
    NO_POST: gettext_noop("Its server did not post what it has to post."),
    PORT_TAKEN: gettext_noop("Its server listens where the challenge does. It may use port 80 only."),
}


@dataclass
class Exchange(Attempt):
    """One try of a run whose image is a web server."""

    _server: str = ""
    _server_ended: bool = False  # while the gateway was still talking to it
    _gateway: str = ""

    def _adopt(self, engine: Engine) -> None:
        """Half an exchange is worth nothing: nobody has listened to the rest. All that is left is removed."""
        chambers.remove_run(engine, str(self.run.pk))

    def _start(self, engine: Engine, lease: Lease, inputs: Path) -> str:
        """The server and, in its loopback, the gateway: which is what the run waits for."""
        pool, run = chambers.chambers(), self.run
        front, back = self._take_chambers(engine, 2)
        gateway_image = base_image(conf().gateway_image)
        if gateway_image is None:
            raise EngineFault("no base image is registered in which the gateway could run: manage.py base_image_add")
        with self.stage("create"):
            filled = pool.background(self._fill, engine, front, inputs)
            try:
                config = walls.server(
                    image_id=run.image.image_id,
                    user=run.image.config.get("user", ""),
                    limits=run.wants,
                    gpus=self._leased,
                    persistent=back.outputs,
                    conf=conf(),
                    cdi=devices.by_cdi(run.host.engine if run.host else {}),
                )
                self._server = self._create(engine, back, config, run.image)
                config = walls.gateway(
                    image_id=gateway_image.image_id,
                    server=self._server,
                    inputs=front.inputs,
                    outputs=front.outputs,
                    limits=run.wants,
                    conf=conf(),
                )
                self._gateway = self._create(engine, front, config, gateway_image, "gateway")
            finally:
                filled.result()
        lease.check()
        with self.stage("start"):
            self._watched_by(lease)
            engine.start(self._server)
            try:
                engine.start(self._gateway)
            except Rejected as rejected:  # the image is ours
                raise EngineFault(f"the gateway cannot be started in {gateway_image}") from rejected
            except EngineFault as fault:
                if engine.running(self._server):
                    raise
                self._reject_ended(engine, engine.ending(self._server), fault)
        return self._gateway

    def _watched_by(self, lease: Lease) -> None:
        lease.watch(self._server, self._gateway, measured=not self.question)

    def _fill(self, engine: Engine, chamber: Chamber, inputs: Path) -> None:
        shutil.copytree(PROGRAM, inputs / walls.GATEWAY, ignore=shutil.ignore_patterns("__pycache__"))
        super()._fill(engine, chamber, inputs)

    def _write_inputs(self, folder: Path) -> None:
        super()._write_inputs(folder)
        self._restore(folder)

    def _restore(self, folder: Path) -> None:
        """Puts back what the server has kept before; it is none of the gateway's."""
        kept = folder / MODEL
        if kept.is_dir():
            assert self._engine is not None
            self._engine.put_back(self._chambers[1], kept)
            shutil.rmtree(kept)

    # -- while it goes on

    def _wait(self, place: Place, lease: Lease, container: str, spent: float) -> bool:
        engine, deadline = place.engine, time.monotonic() + self.run.wants.seconds
        checked = time.monotonic()
        asked: queue.Queue[int | None] = queue.Queue()
        over = threading.Event()
        jobs = (
            lambda: _follow(engine, container, asked, over),
            lambda: self._watch_server(engine, deadline, over),
        )
        with _beside(engine, *jobs):
            try:
                while (left := deadline - time.monotonic()) > 0:
                    try:
                        number = asked.get(timeout=min(left, LOOK_SECONDS))
                    except queue.Empty:
                        lease.check()
                        if time.monotonic() > checked + place.check_seconds:
                            place.check()
                            checked = time.monotonic()
                        continue
                    if number is None:
                        return engine.wait(container, left) and self._see_whether_server_ended(engine)
                    self._answer(place, lease, number, left)
                return False
            finally:
                over.set()
                try:
                    stop(engine, container)
                finally:
                    stop(engine, self._server)

    def _see_whether_server_ended(self, engine: Engine) -> bool:
        """A server that ends in a call has the gateway say that the call failed: both are known, once both are over."""
        if engine.ending(self._gateway).exit_code:
            self._server_ended |= engine.wait(self._server, SOON_SECONDS)
        return True

    def _watch_server(self, engine: Engine, deadline: float, over: threading.Event) -> None:
        """A server that has ended answers nobody: then the gateway need not wait for the time to be over."""
        while (left := deadline - time.monotonic()) > 0 and not over.is_set():
            if engine.wait(self._server, min(left, WATCH_SECONDS)):
                if engine.running(self._gateway):
                    self._server_ended = True
                    if not engine.wait(self._gateway, GRACE_SECONDS):
                        engine.kill(self._gateway)
                return

    def _answer(self, place: Place, lease: Lease, number: int, left: float) -> None:
        """Has somebody answer what the gateway could not, within `left` seconds; a bad question is refused."""
        asked, answers = self.scratch / "asked", self.scratch / "answers"
        answer = answers / "answer"
        for folder in (asked, answer):
            folder.mkdir(parents=True)
        with self.stage("question"):
            try:
                self._ask(place, lease, asked / f"{number}.npz", answer / f"{number}.npz", left)
                (answer / f"{number}.ready").touch()  # comes after the answer by its name, and so by its arrival
            except Rejected as rejected:
                log.info("run.question_refused", number=number, reason=str(rejected.reason), detail=rejected.detail)
                (answer / f"{number}.npz").unlink(missing_ok=True)
                (answer / f"{number}.refused").touch()
            self._watched_by(lease)
            place.engine.put(self._chambers[0], answers)
        for folder in (asked, answers):
            shutil.rmtree(folder)

    def _ask(self, place: Place, lease: Lease, asked: Path, answer: Path, left: float) -> None:
        question = None if self.question else purposes.get(self.run.purpose).question(self.run)
        if question is None:
            raise Rejected(Reason.OUTPUT_INVALID, gettext_noop("Nobody is there who could answer."))
        with place.engine.output(self._chambers[0], f"{ASKED}/{asked.name}") as stream:
            outputs.collect(stream, outputs.Wanted(files=(asked.name,)), asked.parent, **self._bounds)
        if isinstance(question, Known):
            in_child(question.answer(asked, answer))
            return
        inner = _inside(self.run, question, asked, left)
        try:
            inner.execute(place, lease, {})
            in_child(question.read(asked, inner.scratch / "output", answer))
        finally:
            chambers.chambers().discard(place.engine, inner._chambers, inner._containers, spent=True)

    # -- afterwards

    def _write_log(self, engine: Engine, container: str) -> None:
        """What the server said, then what the gateway saw."""
        half = conf().log_bytes // 2
        parts = [self.scratch / name for name in ("server.txt", "gateway.txt")]
        engine.log(self._server, parts[0], half)
        engine.log(container, parts[1], half, stdout=False)
        with (self.scratch / "log.txt").open("wb") as target:
            for path in parts:
                target.write(path.read_bytes())

    def _ending(self, engine: Engine, container: str) -> Ending:
        """How the gateway ended, whose status says how the exchange went; the memory is the server's."""
        ended, server = engine.ending(container), engine.ending(self._server)
        if self._server_ended and ended.exit_code and not server.out_of_memory:
            self._reject_ended(engine, server)
        return Ending(ended.exit_code, server.out_of_memory, ended.seconds, ended.at)

    def _reject_ended(self, engine: Engine, server: Ending, fault: EngineFault | None = None) -> NoReturn:
        for chamber in self._chambers:
            engine.check_held(chamber)
        text = gettext_noop("Its server ended with exit status %(code)d before the exchange was over.")
        raise Rejected(Reason.CRASHED, text % {"code": server.exit_code}) from fault

    def _collect(self, engine: Engine, ending: Ending) -> None:
        if ending.exit_code == TIME_OVER:
            self._check(ending, in_time=False)
        wanted = outputs.Wanted.from_json(self.run.collect)
        fits = MODEL in wanted.folders
        if ending.exit_code in _SENTENCES:
            if fits:  # a full disk may be why
                with self._persistent(engine) as pieces:
                    outputs.measure(pieces, **self._bounds)
            raise Rejected(Reason.CRASHED, self._what_went_wrong(engine, ending.exit_code))
        if ending.exit_code:
            raise EngineFault(f"the gateway ended with status {ending.exit_code}")
        kept = 0
        if fits:
            model = self.scratch / "output" / MODEL
            model.mkdir(mode=0o700)
            with self._persistent(engine) as pieces:
                outputs.collect(pieces, outputs.Everything(), model, **self._bounds)
            kept = pieces.size
        folders = tuple(name for name in wanted.folders if name != MODEL)
        with engine.outputs(self._chambers[0], ending.at) as stream:
            pieces = Counted(stream)
            outputs.collect(pieces, replace(wanted, folders=folders), self.scratch / "output", **self._bounds)
        self._spent = kept + pieces.size > KEPT_BYTES

    @contextmanager
    def _persistent(self, engine: Engine) -> Iterator[Counted]:
        """What the server has kept, as a tar stream. Whatever is wrong with it is said of the folder that it knows.

        If the engine was restarted and shows an empty folder, the gateway's, which is read next, tells so. This one
        cannot: the image's root owns it, and may give it any date.
        """
        with engine.output(self._chambers[1], ".") as stream:
            try:
                yield Counted(stream)
            except Rejected as rejected:
                detail = rejected.detail.replace(walls.OUTPUT, walls.PERSISTENT)
                raise Rejected(rejected.reason, detail) from rejected

    def _what_went_wrong(self, engine: Engine, status: int) -> str:
        """A sentence; with what the gateway says of it, if that is of its kind."""
        try:
            said = in_child((exchange_report.problem, (str(self._report(engine)),)))["problem"]
        except (Rejected, NotThere):
            said = ""
        return f"{_SENTENCES[status]} {said}".rstrip()

    def _account(self, engine: Engine) -> Any:
        """Which routes answered, and which did not: as far as the gateway came to say it."""
        try:
            reader = purposes.get(self.run.purpose).account(self.run, self._report(engine))
            return None if reader is None else in_child(reader)
        except (Rejected, EngineFault):
            return None

    def _report(self, engine: Engine) -> Path:
        """What the gateway has written of the exchange. Raises `Rejected`, NotThere."""
        name, folder = exchange_report.NAME, self.scratch / "report"
        if not self._chambers:
            raise NotThere("the exchange has not begun")
        if not folder.exists():
            folder.mkdir()
            with engine.output(self._chambers[0], name) as stream:
                outputs.collect(stream, outputs.Wanted(files=(name,)), folder, **self._bounds)
        return folder / name


def _inside(run: Run, question: Question, asked: Path, left: float) -> Attempt:
    """A run inside a run: a copy of its row that is never saved, for a step of the image that can answer."""
    inner = copy.copy(run)
    inner.image, inner.step, inner.contract = question.image, question.step, question.contract
    limits = Limits.from_json(question.limits)
    inner.limits = replace(limits, seconds=min(limits.seconds, int(left * PATIENCE) + 1)).to_json()
    inner.collect = question.collect
    kind = Exchange if question.contract == Contract.WEB else Attempt
    return kind(inner, question=question, asked=asked)


def _follow(engine: Engine, container: str, asked: "queue.Queue[int | None]", over: threading.Event) -> None:
    """Passes on the number of each question that a gateway asks, and None when it has ended.

    A cut line is picked up again. Whatever else is said is passed over: what reads a stranger's bytes may go mad.
    """
    number = 1
    try:
        while not over.is_set():
            with suppress(EngineFault):
                for line in engine.lines(container):
                    if over.is_set():
                        return
                    if line == f"{QUESTION}{number}" and number <= MOST_QUESTIONS:  # the gateway knows as much
                        asked.put(number)
                        number += 1
            if engine.wait(container, LOOK_SECONDS):
                return
    finally:
        asked.put(None)


@contextmanager
def _beside(engine: Engine, *jobs: Callable[[], None]) -> Iterator[None]:
    """Threads that end by themselves when the block does, because it stops what they watch.

    An engine that does not even hear that keeps them for a while: each looks now and then whether all is over.
    """

    def quietly(job: Callable[[], None]) -> None:
        try:
            job()
        except EngineFault as fault:  # the run's own thread meets it too
            log.info("exchange.not_watched", fault=str(fault))
        finally:
            engine.hang_up()

    threads = [threading.Thread(target=quietly, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
