"""Runs driven from end to end: politely first, then every way to fail, each in its named reason.

After each test there is no container, volume or working file left.
"""

import resource
import tarfile

import pytest
from django.utils import timezone
from image_builder import ImageBuilder, busybox_layer, member, tar

from sandbox import actions, purposes, reasons, worker
from sandbox.engine import RUN, Ending, Engine
from sandbox.models import Run, Slot
from sandbox.reasons import Reason

pytestmark = pytest.mark.usefixtures("leaves_nothing")

ANSWER = "echo yes > /output/answer.txt"


class TestPolite:
    def test_run(self, run, questions):
        ended = run(f"cat /input/task.json /input/tables/train.csv; {ANSWER}")

        assert ended.state == Run.State.SUCCEEDED
        assert ended.reason == ""
        assert ended.exit_code == 0
        assert 0 <= ended.seconds < 5  # a short one may end before the engine notes its start
        assert ended.timings["container"] > 0
        assert ended.log_path.read_text() == '{"step": "attack"}age\n41\n'
        assert (ended.result_folder / "answer.txt").read_text() == "yes"
        [(settled, verdict)] = questions.settled
        assert settled == ended
        assert verdict == {"length": 3, "canonical": "yes"}
        assert not Slot.objects.exclude(run=None).exists()

    def test_many_runs_one_after_the_other(self, queue, questions, make_image):
        """More than one holder's chambers: each run has an empty /output of its own."""
        image = make_image(f"ls /output; {ANSWER}")
        runs = [queue(image) for _ in range(10)]
        assert worker.work() == 10
        assert len(questions.settled) == 10
        for run in runs:
            run.refresh_from_db()
            assert run.state == Run.State.SUCCEEDED
            assert run.log_path.read_text() == ""

    def test_of_its_outputs_only_what_was_read_is_kept(self, run):
        ended = run(f"{ANSWER}; echo 1 > /output/raw", collect={"files": ["answer.txt", "raw"]})
        assert {path.name for path in ended.folder.rglob("*")} == {"log.txt", "result", "answer.txt"}

    def test_folders_are_collected_whole(self, run, questions):
        collected = {}

        def judge(run, result, read):
            output = result.parent / "output"
            collected.update((str(path.relative_to(output)), path.read_text()) for path in output.rglob("*.txt"))

        questions.judge = judge
        run(
            f"{ANSWER}; mkdir -p /output/model/deep; echo 1 > /output/model/deep/w.txt; echo 2 > /output/junk.txt",
            collect={"files": ["answer.txt"], "folders": ["model"]},
        )
        assert collected == {"answer.txt": "yes\n", "model/deep/w.txt": "1\n"}

    def test_environment(self, run):
        ended = run(f"env; id; pwd; {ANSWER}", private=False)
        log = ended.log_path.read_text()
        for line in ("ANOMED_STEP=attack", "ANOMED_INPUT=/input", "ANOMED_OUTPUT=/output", "HOME=/tmp"):
            assert line in log
        assert "NVIDIA_VISIBLE_DEVICES=void" in log
        assert "OMP_NUM_THREADS" not in log
        assert "OPENBLAS" not in log
        assert "uid=65534 gid=65534" in log
        assert "groups=65534\n" in log or "groups" not in log


BAD = {
    "crash": ("exit 3", Reason.CRASHED),
    "no such program": ("/no/such/program", Reason.CRASHED),
    "hang": ("sleep 60", Reason.TIMEOUT),
    "ignores SIGTERM": ("trap '' TERM INT; while true; do sleep 1; done", Reason.TIMEOUT),
    "spins": ("while true; do :; done", Reason.TIMEOUT),
    "eats memory": ("tail /dev/zero", Reason.OUT_OF_MEMORY),
    "eats memory in a child and says that all is well": (f"tail /dev/zero; {ANSWER}", Reason.OUT_OF_MEMORY),
    "fills /output": ("cat /dev/zero > /output/answer.txt", Reason.OUTPUT_TOO_LARGE),
    "fills /output and says that all is well": ("cat /dev/zero > /output/junk; exit 0", Reason.OUTPUT_TOO_LARGE),
    "many files": ("i=0; while touch /output/$i; do i=$((i+1)); done; exit 0", Reason.OUTPUT_TOO_LARGE),
    "writes nothing": ("true", Reason.OUTPUT_MISSING),
    "writes a folder instead": ("mkdir /output/answer.txt", Reason.OUTPUT_MISSING),
    "link out": ("ln -s /etc/passwd /output/answer.txt", Reason.OUTPUT_INVALID),
    "link to the inputs": ("ln -s /input/task.json /output/answer.txt", Reason.OUTPUT_INVALID),
    "hard link": (f"{ANSWER}; ln /output/answer.txt /output/other", Reason.OUTPUT_INVALID),
    "FIFO": ("mkfifo /output/answer.txt", Reason.OUTPUT_INVALID),
    "sparse file": ("truncate -s 900M /output/answer.txt", Reason.OUTPUT_INVALID),
    "sparse file of a terabyte": ("truncate -s 1T /output/answer.txt", Reason.CRASHED),  # the file size limit
    "name with a newline": (f"{ANSWER}; touch \"/output/$(printf 'a\\nb')\"", Reason.OUTPUT_INVALID),
    "wrong content": ("echo wrong > /output/answer.txt", Reason.OUTPUT_INVALID),
    "not even text": ("printf '\\377\\376' > /output/answer.txt", Reason.OUTPUT_INVALID),
}


class TestBad:
    @pytest.mark.parametrize("name", BAD)
    def test_ends_in_its_named_reason_and_the_next_run_works(self, run, questions, name):
        script, reason = BAD[name]
        limits = {"seconds": 3} if reason == Reason.TIMEOUT else {}

        ended = run(script, limits=limits)

        assert (ended.state, ended.reason) == (Run.State.FAILED, reason), ended.detail
        assert ended.attempt == 1
        assert questions.settled == [(ended, None)]
        assert [path.name for path in ended.folder.iterdir()] == ["log.txt"]
        assert reasons.sentence(ended.reason)
        assert reasons.hint(ended.reason)
        assert run(ANSWER).state == Run.State.SUCCEEDED

    def test_forks_without_end(self, run):
        ended = run("f() { f | f & }; f; sleep 2; exit 1", limits={"pids": 32, "seconds": 5})
        assert ended.reason in (Reason.CRASHED, Reason.TIMEOUT)
        assert run(ANSWER).state == Run.State.SUCCEEDED

    def test_fills_tmp(self, run):
        """Which is its own business: /tmp is bounded, and all else goes on."""
        ended = run(f"cat /dev/zero > /tmp/full; rm /tmp/full; {ANSWER}", limits={"memory_mb": 256})
        assert ended.state == Run.State.SUCCEEDED
        assert "No space left" in ended.log_path.read_text()

    def test_prints_without_end(self, run):
        run(ANSWER)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ended = run(f"yes 0123456789 | head -c 20000000; {ANSWER}; echo the end", limits={"seconds": 60})
        assert ended.state == Run.State.SUCCEEDED
        assert ended.log_path.stat().st_size <= 1 << 20
        assert ended.log_path.read_bytes().endswith(b"the end\n")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kilobytes

    def test_exactly_the_limit_is_allowed(self, run):
        ended = run(f"head -c {8 << 20} /dev/zero > /output/answer.txt", limits={"output_mb": 8})
        assert ended.state == Run.State.SUCCEEDED, ended.detail

    def test_files_where_our_folders_go(self, run, tmp_path):
        """An image that has a file at /input cannot be started, and that is its own fault."""
        layers = [busybox_layer(), tar(member("input", b"a file"))]
        builder = ImageBuilder(layers=layers, config={"Cmd": ["/bin/sh", "-c", ANSWER]})
        archive = builder.docker_archive(tmp_path / "image.tar")
        ended = run(actions.store_image(checked=actions.check_archive(archive=archive)))
        assert ended.reason == Reason.CRASHED, ended.detail
        assert ended.attempt == 1

    def test_layer_that_cannot_be_unpacked(self, run, tmp_path, questions):
        """Headers are sound, but only an engine finds that the link leads nowhere: no fault of the platform."""
        link = member("bin/link", type=tarfile.LNKTYPE, linkname="no space left on device")
        builder = ImageBuilder(layers=[busybox_layer(), tar(link)], config={"Cmd": ["/bin/sh", "-c", ANSWER]})
        archive = builder.docker_archive(tmp_path / "image.tar")
        ended = run(actions.store_image(checked=actions.check_archive(archive=archive)))
        assert (ended.state, ended.reason, ended.attempt) == (Run.State.FAILED, Reason.IMAGE_INVALID, 1)
        assert "cannot be unpacked" in ended.detail
        assert questions.settled == [(ended, None)]

    def test_what_the_image_has_in_output_is_not_output(self, run, tmp_path):
        layers = [busybox_layer(), tar(member("output/answer.txt", b"from the image"))]
        builder = ImageBuilder(layers=layers, config={"Cmd": ["/bin/sh", "-c", "true"]})
        archive = builder.docker_archive(tmp_path / "image.tar")
        ended = run(actions.store_image(checked=actions.check_archive(archive=archive)))
        assert ended.reason == Reason.OUTPUT_MISSING


class TestOurFaults:
    def test_purpose_that_fails_is_retried_then_a_platform_fault(self, run, questions):
        questions.judge = lambda run, result, read: 1 / 0
        ended = run(ANSWER)
        assert (ended.state, ended.reason) == (Run.State.FAILED, Reason.PLATFORM_FAULT)
        assert ended.attempt == 3
        assert not ended.result_folder.exists()
        assert questions.settled == [(ended, None)]

    def test_fault_that_passes_costs_nothing(self, run, questions):
        honest = questions.judge
        faults = iter([1])

        def judge(run, result, read):
            for _ in faults:
                raise OSError("the disk was full for a moment")
            return honest(run, result, read)

        questions.judge = judge
        ended = run(ANSWER)
        assert (ended.state, ended.attempt, ended.faults) == (Run.State.SUCCEEDED, 2, 1)
        assert len(questions.settled) == 1

    def test_retry_rests_before_it_comes_back(self, run, questions, settings):
        settings.SANDBOX = {"retry_seconds": 1000}
        questions.judge = lambda run, result, read: 1 / 0
        ended = run(ANSWER)
        assert (ended.state, ended.attempt) == (Run.State.QUEUED, 2)
        assert ended.due_at > timezone.now()
        assert not Slot.objects.exclude(run=None).exists()

    def test_purpose_that_cannot_settle_ends_all_the_same(self, run, questions):
        questions.settle = lambda run, verdict: 1 / 0
        ended = run(ANSWER)
        assert (ended.state, ended.reason) == (Run.State.FAILED, Reason.PLATFORM_FAULT)
        assert not Slot.objects.exclude(run=None).exists()

    def test_unknown_purpose(self, run, questions):
        purposes.forget("questions")
        assert run(ANSWER).reason == Reason.PLATFORM_FAULT

    def test_logs_quote_nothing_that_was_read(self, run, questions, capfd, caplog):
        def judge(run, result, read):
            raise ValueError((result / "answer.txt").read_text())

        questions.judge = judge
        ended = run("echo canary-7 | tee /output/answer.txt")
        assert ended.detail.startswith("ValueError: ")
        assert "test_worker.py:" in ended.detail
        assert "canary-7" not in ended.detail
        out, err = capfd.readouterr()
        assert "run.fault" in err + caplog.text
        assert "canary-7" not in out + err + caplog.text

    def test_holder_that_dies_is_not_the_participants_fault(self, run, engine, questions, monkeypatch):
        """As when the engine is restarted: outputs and container are gone, innocently."""
        honest = Engine.ending
        deaths = iter([1])

        def ending(self: Engine, container: str) -> Ending:
            for _ in deaths:
                for found in self.containers():
                    if RUN not in found["Labels"]:
                        self.kill(found["Id"])
            return honest(self, container)

        monkeypatch.setattr(Engine, "ending", ending)
        ended = run(ANSWER)
        assert (ended.state, ended.attempt, ended.faults) == (Run.State.SUCCEEDED, 2, 1)
        assert len(questions.settled) == 1
