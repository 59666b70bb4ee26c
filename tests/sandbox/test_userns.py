"""An engine that remaps users: root in its containers is nobody on the host. Runs go on it as on any other."""

import pytest
from test_worker import ANSWER, BAD

from sandbox import actions, inspection, reaper, worker
from sandbox.hosts import LOCAL_HOST, engine_of
from sandbox.models import Host, Run, Slot
from tests.engines import SpareEngine


@pytest.fixture(scope="module")
def remapped():
    with SpareEngine("walls-userns", 30, config={"userns-remap": "default"}) as engine:
        yield engine


@pytest.fixture
def host(remapped, host):
    """The only host that takes runs; this machine's own is cordoned."""
    Host.objects.update(state=Host.State.CORDONED)
    host = Host.objects.create(name="remapped", url=remapped.url)
    Slot.objects.create(host=host, number=1)
    yield host
    reaper.sweep_engine(engine_of(host), everything=True)


def test_is_seen_and_stands_the_test(host):
    assert inspection.note(host)
    assert (host.walls, host.complaint) == (["standard", "userns"], "")


def test_runs_end_as_anywhere(host, queue, run, questions, engine):
    inspection.note(host)
    script = f"cat /proc/self/uid_map; cat /input/task.json; {ANSWER}; touch /input/x 2>/dev/null || echo held"
    polite = run(script, walls=["userns"])
    assert (polite.state, polite.host) == (Run.State.SUCCEEDED, host), polite.detail
    mapped, *rest = polite.log_path.read_text().splitlines()
    inside, outside, _count = map(int, mapped.split())
    assert inside == 0 < outside  # what would be root in there is somebody without rights on the host
    assert rest == ['{"step": "attack"}held']
    for name in ("eats memory", "fills /output", "link out", "crash"):
        script, reason = BAD[name]
        ended = run(script, walls=["userns"])
        assert (ended.reason, ended.host) == (reason, host), ended.detail


def test_run_that_demands_it_never_goes_to_another_host(host, queue):
    actions.ensure_local_host(slots=1)
    Host.objects.filter(pk=host.pk).update(state=Host.State.DRAINING)
    Host.objects.filter(name=LOCAL_HOST).update(state=Host.State.ACTIVE)
    waiting = queue(ANSWER, walls=["userns"])
    assert worker.work() == 0
    waiting.refresh_from_db()
    assert (waiting.state, waiting.attempt) == (Run.State.QUEUED, 0)
