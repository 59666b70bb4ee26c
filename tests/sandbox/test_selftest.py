"""The self-test of a host, with the real engine: as it is, and with one wall left out of the options."""

import uuid

import pytest

from sandbox import inspection, selftest, walls
from sandbox.offers import Offer

pytestmark = pytest.mark.usefixtures("leaves_nothing")

ALL = Offer(["standard", "gvisor"])


def test_this_machines_engine_stands_the_test(engine, host):
    assert selftest.confirm(engine, ALL) == ALL


LEFT_OUT = {
    "no-new-privileges": {"SecurityOpt": ["seccomp=" + walls.seccomp_profile(walls.Conf().seccomp)]},
    "seccomp profile": {"SecurityOpt": ["no-new-privileges:true", "seccomp=unconfined"]},
    "capabilities": {"CapDrop": []},
}


@pytest.mark.parametrize("sentence", LEFT_OUT)
def test_probe_finds_what_is_open(engine, host, monkeypatch, sentence):
    closed = walls._closed
    monkeypatch.setattr(walls, "_closed", lambda conf: closed(conf) | LEFT_OUT[sentence])
    offer = selftest.confirm(engine, ALL)
    [complaint] = offer.complaints
    assert sentence in complaint
    assert offer.walls == []


def test_probe_finds_root(engine, host, monkeypatch):
    monkeypatch.setattr(walls, "NOBODY", "0:0")
    assert "root" in selftest.confirm(engine, ALL).complaints[0]


def test_gvisor_that_is_something_else(engine, host, settings):
    """As when an operator has named another runtime so."""
    settings.SANDBOX = {"gvisor_runtime": "runc"}
    offer = selftest.confirm(engine, ALL)
    assert offer.walls == ["standard"]
    assert "something else" in offer.complaints[0]


def test_gvisor_that_does_not_start(engine, host, settings):
    settings.SANDBOX = {"gvisor_runtime": "no-such-runtime"}
    offer = selftest.confirm(engine, ALL)
    assert offer.walls == ["standard"]
    assert "gVisor does not work" in offer.complaints[0]


@pytest.fixture
def trial(engine, host):
    """What the engine made of a run's options, and the options."""
    holder_id = uuid.uuid4().hex[:16]
    [chamber] = engine.prepare(holder_id, 1, "nobody:1:1", 1)
    config = walls.container(
        image_id=engine.holder_image(),
        step="fit",
        limits=selftest._LIMITS,
        gpus=[],
        inputs=chamber.inputs,
        outputs=chamber.outputs,
        hosts=chamber.hosts,
        conf=walls.Conf(),
    )
    yield config, engine.try_out({**config, "Cmd": ["/probe"]}, chamber, 30)
    engine.remove_holder(holder_id)


def test_each_option_is_missed_when_the_engine_drops_it(trial):
    config, tried = trial
    assert tried.warnings == []
    assert selftest.dropped(config, tried.seen) == []
    for name, value in config["HostConfig"].items():
        if value:
            seen = {**tried.seen, "HostConfig": {**tried.seen["HostConfig"], name: None}}
            assert selftest.dropped(config, seen) == [name]
    less = {**tried.seen["HostConfig"], "SecurityOpt": ["no-new-privileges:true"]}
    assert selftest.dropped(config, {**tried.seen, "HostConfig": less}) == ["SecurityOpt"]


def test_warnings_are_complaints(trial):
    config, tried = trial
    warned = selftest.Trial(["Your kernel does not support swap limit capabilities"], tried.seen, tried.exit_code)
    [complaint] = selftest.findings(config, warned, [])
    assert "swap limit" in complaint


def test_is_done_again_when_the_engine_says_something_new(engine, host, monkeypatch):
    tests = []
    monkeypatch.setattr(selftest, "confirm", lambda engine, offer: tests.append(1) or offer)
    monkeypatch.setattr(inspection, "_tested", {})
    honest = engine.info()
    for info in (honest, honest, {**honest, "ServerVersion": "99.0"}):
        monkeypatch.setattr(type(engine), "info", lambda self, info=info: info)
        inspection.look(host)
    assert len(tests) == 2


def test_is_done_again_after_it_failed(engine, host, monkeypatch):
    """A host that was too busy for its test, or out of disk, is not left out for an hour."""
    answers = iter([ALL.without(None, ["busy"]), ALL])
    monkeypatch.setattr(selftest, "confirm", lambda engine, offer: next(answers))
    monkeypatch.setattr(inspection, "_tested", {})
    assert inspection.note(host)
    assert (host.walls, host.complaint) == ([], "busy")
    for _ in range(2):  # the second look asks for no third test
        assert inspection.note(host)
        assert (host.walls, host.complaint) == (ALL.walls, "")


def test_host_with_a_complaint_takes_no_run(run, host, monkeypatch):
    closed = walls._closed
    monkeypatch.setattr(walls, "_closed", lambda conf: closed(conf) | {"CapDrop": []})
    monkeypatch.setattr(inspection, "_tested", {})
    assert inspection.note(host)
    assert "capabilities" in host.complaint
    assert run("true", collect={}).state == "queued"
    assert run("true", collect={}, private=False).state == "queued"
    inspection._tested.clear()
