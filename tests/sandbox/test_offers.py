"""What an engine offers, by its own account: this machine's real one, and that account with one thing changed."""

import pytest

from sandbox import inspection, offers, system_checks
from sandbox.models import Run


@pytest.fixture
def info(engine):
    return engine.info()


def test_this_machines_engine_has_all_that_a_private_run_needs(info):
    offer = offers.inspect(info)
    assert offer.complaints == []
    assert offer.walls == ["standard", "gvisor"]


LACKS = {
    "too old: at least 20.10": {"ServerVersion": "19.03.15"},
    "The engine ? is too old": {"ServerVersion": None},
    "no memory limits": {"MemoryLimit": False},
    "no swap limits": {"SwapLimit": None},
    "no limit of processes": {"PidsLimit": False},
    "no limit of processor time": {"CpuCfsQuota": False},
    "no seccomp": {"SecurityOptions": ["name=apparmor"]},
    "rootless without cgroup v2": {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]},
    "not Linux on x86-64": {"Architecture": "aarch64"},
}


@pytest.mark.parametrize("sentence", LACKS)
def test_engine_that_lacks_a_standard_protection(info, sentence):
    offer = offers.inspect({**info, "CgroupVersion": "1", **LACKS[sentence]})
    [complaint] = offer.complaints
    assert sentence in complaint
    assert "standard" not in offer.walls


def test_second_walls(info):
    remapped = {**info, "Runtimes": {}, "SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}
    assert offers.inspect(remapped).walls == ["standard", "userns"]
    assert offers.inspect({**info, "Runtimes": None}).walls == ["standard"]


def test_gvisor_by_another_name(info, settings):
    settings.SANDBOX = {"gvisor_runtime": "runsc-kvm"}
    assert offers.inspect(info).walls == ["standard"]
    assert offers.inspect({**info, "Runtimes": {"runsc-kvm": {}}}).walls == ["standard", "gvisor"]


@pytest.mark.parametrize("arguments", [["--nvproxy"], ["--platform=systrap", "--nvproxy=true"], ["-nvproxy=1"]])
def test_gvisor_that_lets_gpus_through(info, arguments):
    runtimes = {"runsc": {"path": "runsc", "runtimeArgs": arguments}}
    assert offers.inspect({**info, "Runtimes": runtimes}).walls == ["standard", "gvisor", "gvisor-gpus"]


@pytest.mark.parametrize("arguments", [None, [], ["--nvproxy=false"], ["--no-nvproxy"]])
def test_gvisor_that_keeps_gpus_out(info, arguments):
    runtimes = {"runsc": {"path": "runsc", "runtimeArgs": arguments}}
    assert offers.inspect({**info, "Runtimes": runtimes}).walls == ["standard", "gvisor"]


def test_demanded():
    assert offers.demanded(["gvisor"], gpus=2) == {"gvisor", "gvisor-gpus", "standard"}
    assert offers.demanded([], gpus=2) == {"standard"}
    assert offers.demanded(["gvisor"]) == {"gvisor", "standard"}
    assert offers.demanded([]) == {"standard"}


def test_host_is_noted_when_it_is_made(host):
    assert host.walls == ["standard", "gvisor"]
    assert host.complaint == ""
    assert host.engine["MemoryLimit"] is True


def test_engine_that_does_not_answer_offers_nothing(host):
    host.url = "tcp://127.0.0.1:9"
    assert not inspection.note(host)


def test_run_in_gvisor(run):
    """Its kernel is not the host's: it says so itself."""
    ended = run("dmesg; echo yes > /output/answer.txt", walls=["gvisor"])
    assert (ended.state, ended.reason) == (Run.State.SUCCEEDED, ""), ended.detail
    assert "Starting gVisor" in ended.log_path.read_text()


def test_settings_that_demand_a_wall_nobody_knows(settings):
    settings.SANDBOX = {"walls": ("gvisor", "moat")}
    [error] = system_checks.walls(None)
    assert "'moat'" in error.msg
    settings.SANDBOX = {"walls": ("gvisor", "userns")}
    assert system_checks.walls(None) == []
