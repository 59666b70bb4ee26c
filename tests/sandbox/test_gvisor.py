"""Runs behind the second wall: the same contract and the same named outcomes, in gVisor.

What differs is said here: each case that cannot be the same has its own expectation and the reason why.
"""

import pytest
from image_builder import ImageBuilder, busybox_layer, member, tar
from test_worker import ANSWER, BAD

from sandbox import actions, walls, worker
from sandbox.limits import Limits
from sandbox.models import Run
from sandbox.reasons import Reason

pytestmark = pytest.mark.usefixtures("leaves_nothing")


@pytest.fixture
def run(run):
    """Like any run, but in gVisor."""
    return lambda script, **more: run(script, walls=["gvisor"], **more)


def test_polite_run(run, questions):
    ended = run(f"dmesg | grep -c gVisor; cat /input/task.json /input/tables/train.csv; id; {ANSWER}")
    assert (ended.state, ended.reason) == (Run.State.SUCCEEDED, ""), ended.detail
    assert ended.log_path.read_text().splitlines() == [
        "1",  # the kernel that answers is not the host's
        '{"step": "attack"}age',
        "41",
        "uid=65534 gid=65534 groups=65534",
    ]
    assert questions.settled == [(ended, {"length": 3, "canonical": "yes"})]


SAME = (
    "crash",
    "hang",
    "eats memory",
    "fills /output",
    "many files",
    "link out",
    "hard link",
    "sparse file",
    "name with a newline",
)


@pytest.mark.parametrize("name", SAME)
def test_ends_in_the_same_named_reason(run, questions, name):
    script, reason = BAD[name]
    ended = run(script, limits={"seconds": 5} if reason == Reason.TIMEOUT else {})
    assert (ended.state, ended.reason, ended.attempt) == (Run.State.FAILED, reason, 1), ended.detail
    assert questions.settled == [(ended, None)]


def test_child_that_eats_memory_takes_the_whole_container_along(run):
    """The kernel of the host kills gVisor itself, and says so: an overrun can be told from a crash here too."""
    ended = run(f"tail /dev/zero; {ANSWER}")
    assert (ended.reason, ended.exit_code) == (Reason.OUT_OF_MEMORY, 137), ended.detail


def test_fifo_never_reaches_the_host(run):
    """gVisor keeps it to itself, so there is no output at all: missing instead of invalid."""
    assert run("mkfifo /output/answer.txt").reason == Reason.OUTPUT_MISSING


def test_forks_without_end(run):
    """At the limit of threads gVisor falls, and the container with it; nothing else does."""
    ended = run("f() { f | f & }; f; sleep 2; exit 1", limits={"pids": 16, "seconds": 8})
    assert ended.reason in (Reason.CRASHED, Reason.TIMEOUT), ended.detail
    assert run(ANSWER).state == Run.State.SUCCEEDED


def test_as_many_processes_as_are_allowed(run):
    script = f"i=0; while [ $i -lt 55 ]; do sleep 2 & i=$((i+1)); done; wait; {ANSWER}"
    assert run(script, limits={"pids": 64, "memory_mb": 256}).state == Run.State.SUCCEEDED


def test_fills_tmp(run):
    ended = run(f"cat /dev/zero > /tmp/full; rm /tmp/full; {ANSWER}", limits={"memory_mb": 256})
    assert ended.state == Run.State.SUCCEEDED, ended.detail
    assert "No space left" in ended.log_path.read_text()


def test_prints_without_end(run):
    ended = run(f"yes 0123456789 | head -c 5000000; {ANSWER}; echo the end", limits={"seconds": 60})
    assert ended.state == Run.State.SUCCEEDED, ended.detail
    assert ended.log_path.stat().st_size <= 1 << 20
    assert ended.log_path.read_bytes().endswith(b"the end\n")


def test_nothing_but_its_own_folders_can_be_written(run):
    attempts = ("/file", "/bin/file", "/input/file", "/sys/file", "/proc/sys/kernel/panic")
    script = "; ".join(f"(echo 1 > {path}) 2>/dev/null && echo 'wrote {path}'" for path in attempts)
    ended = run(f"{script}; nc -w 2 1.1.1.1 80 < /dev/null 2>/dev/null && echo online; {ANSWER}")
    assert ended.state == Run.State.SUCCEEDED, ended.detail
    assert ended.log_path.read_text() == ""


@pytest.mark.parametrize("wall", [[], ["gvisor"]])
@pytest.mark.parametrize(("path", "config"), [("input", {}), ("work", {"WorkingDir": "/work"})], ids=["input", "cwd"])
def test_file_where_a_folder_goes_is_the_images_fault(queue, tmp_path, path, config, wall):
    """Neither engine nor gVisor say it plainly."""
    layers = [busybox_layer(), tar(member(path, b"a file"))]
    builder = ImageBuilder(layers=layers, config={"Cmd": ["/bin/sh", "-c", ANSWER], **config})
    archive = builder.docker_archive(tmp_path / "image.tar")
    ended = queue(actions.store_image(checked=actions.check_archive(archive=archive)), walls=wall)
    worker.work()
    ended.refresh_from_db()
    assert (ended.reason, ended.attempt) == (Reason.CRASHED, 1), ended.detail


def test_gvisor_that_was_taken_off_the_host_is_nobodys_fault(queue, host, settings):
    """Until the next look at the host, it is believed to be there."""
    settings.SANDBOX = {**settings.SANDBOX, "gvisor_runtime": "runsc-gone"}
    waiting = queue(ANSWER, walls=["gvisor"])
    worker.work()
    waiting.refresh_from_db()
    assert (waiting.state, waiting.faults) == (Run.State.QUEUED, 0), waiting.detail
    assert "runsc-gone" in waiting.detail
    host.refresh_from_db()
    assert host.avoid_until is not None


def test_only_what_demands_it_runs_in_gvisor():
    """Its kernel is a process inside of the container's limits, which therefore are larger by what it needs."""
    options = {
        demanded: walls.container(
            image_id="sha256:0",
            step="fit",
            limits=Limits(pids=64, memory_mb=100),
            gpus=[],
            inputs="in",
            outputs="out",
            hosts="hosts",
            conf=walls.Conf(),
            demanded=demanded,
        )["HostConfig"]
        for demanded in ((), ("userns",), ("gvisor",))
    }
    assert "Runtime" not in options[()]
    assert options[("userns",)] == options[()]
    different = {name: value for name, value in options[("gvisor",)].items() if options[()].get(name) != value}
    assert different == {"Runtime": "runsc", "PidsLimit": 128 + 12 * 64, "Memory": 132 << 20, "MemorySwap": 132 << 20}
