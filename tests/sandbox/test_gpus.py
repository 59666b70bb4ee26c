"""GPUs: who gets which, for how long, and what happens to one that is lost. The rows here are invented."""

import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from benchmarks import gpu_race
from sandbox import actions, devices, hopeless, leases, nvidia, reaper
from sandbox.models import Gpu, Host, Image, Run, Slot
from sandbox.reasons import Reason
from tests import databases


@pytest.fixture
def waiting(transactional_db: None) -> Callable[..., Run]:
    """A queued run that is only ever claimed: `waiting(gpus=1, memory_mb=8000)`."""
    image = Image.objects.create(image_id="sha256:" + "0" * 64)

    def waiting(*, gpus: int = 1, memory_mb: int = 0, **fields: object) -> Run:
        limits = {"gpus": gpus, "gpu_memory_mb": memory_mb}
        wanted = {"purpose": "questions", "step": "attack", "image": image, "owner": "ada", "gpus": gpus}
        return Run.objects.create(**wanted, limits=limits, **fields)

    return waiting


@pytest.fixture
def make_host(transactional_db: None) -> Callable[..., Host]:
    """A host with GPUs of so many megabytes that no test here asks anything: `make_host("one", 8000, 16000)`."""

    def make_host(name: str, *sizes: int, slots: int = 2, **fields: object) -> Host:
        host = Host.objects.create(name=name, url=f"unix:///{name}", **{"walls": ["standard"], **fields})
        for number in range(1, slots + 1):
            Slot.objects.create(host=host, number=number)
        for number, size in enumerate(sizes):
            Gpu.objects.create(host=host, uuid=f"GPU-{name}-{number}", memory_mb=size)
        return host

    return make_host


def leased(run: Run | None) -> list[str]:
    assert run is not None
    return sorted(run.leased_gpus.values_list("uuid", flat=True))


def lease_ends(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


class TestFit:
    def test_the_smallest_that_suffices(self, make_host, waiting):
        make_host("one", 40000, 8000, 16000)
        waiting(memory_mb=10000)
        assert leased(leases.claim("me")) == ["GPU-one-2"]

    def test_the_smallest_of_all_hosts(self, make_host, waiting):
        make_host("large", 80000, slots=4)
        make_host("small", 16000, slots=1)
        waiting(memory_mb=10000)
        assert leased(leases.claim("me")) == ["GPU-small-0"]

    def test_all_on_one_host(self, make_host, waiting):
        make_host("one", 8000)
        make_host("other", 8000)
        waiting(gpus=2)
        assert leases.claim("me") is None
        make_host("third", 80000, 80000)
        assert leased(leases.claim("me")) == ["GPU-third-0", "GPU-third-1"]

    def test_a_lost_one_is_never_leased(self, make_host, waiting):
        make_host("one", 8000)
        Gpu.objects.update(lost_at=timezone.now())
        waiting()
        assert leases.claim("me") is None

    @pytest.mark.parametrize("state", sorted(set(Host.State) - {Host.State.ACTIVE}))
    def test_none_of_a_host_that_takes_no_runs(self, make_host, waiting, state):
        make_host("one", 8000, state=state)
        waiting()
        assert leases.claim("me") is None

    def test_runs_without_gpus_pass_by_those_that_wait_for_one(self, make_host, waiting):
        make_host("one", 8000)
        for _ in range(leases.CANDIDATES + 1):
            waiting(gpus=4, priority=9)  # more than anybody has
        plain = waiting(gpus=0)
        assert leases.claim("me") == plain


class TestRaces:
    @pytest.mark.parametrize("database", ["sqlite", "postgresql"])
    def test_two_workers_never_both_get_one(self, database):
        """A small version of the benchmark: processes of their own on a database of its own."""
        with contextlib.ExitStack() as stack:
            url = "" if database == "sqlite" else stack.enter_context(databases.postgres())
            facts = gpu_race.race(url, 300)
        assert (facts["both"], facts["none"]) == (0, 0)
        assert sum(facts["wins"]) == 300
        assert facts["at_the_same_time"] > 30  # it was a race

    def test_one_that_was_taken_meanwhile(self, make_host, waiting, monkeypatch):
        """Between seeing that it is free and taking it, another worker was quicker: not even the slot is kept."""
        make_host("one", 8000)
        quicker = waiting(due_at=timezone.now() + timedelta(days=1))
        slower = waiting()
        honest = leases._fitting_gpus

        def fitting_gpus(*args: object) -> list[Gpu]:
            seen = honest(*args)
            Gpu.objects.update(run=quicker)
            return seen

        monkeypatch.setattr(leases, "_fitting_gpus", fitting_gpus)
        with pytest.raises(leases._Taken), transaction.atomic():
            leases._take(slower, "me")
        assert not Slot.objects.exclude(run=None).exists()
        slower.refresh_from_db()
        assert slower.state == Run.State.QUEUED


class TestDeadHolders:
    def test_free_again_after_the_lease_and_not_before(self, make_host, waiting, questions):
        make_host("one", 8000)
        held = waiting(priority=1)
        waiting()
        assert leases.claim("a worker that is killed") == held
        assert leases.claim("me") is None
        lease_ends(held)
        again = leases.claim("me")
        assert again == held  # with its GPU: what its dead worker left there goes first
        assert again.attempt == 2
        assert leased(again) == ["GPU-one-0"]
        assert leases.claim("they") is None
        assert leases.finish(again, reason=Reason.CRASHED)
        assert leased(leases.claim("they")) == ["GPU-one-0"]

    def test_cancelled_while_its_worker_was_dead(self, make_host, waiting, settings):
        make_host("one", 8000)
        held = waiting(priority=1)
        waiting()
        assert leases.claim("a worker that is killed") == held
        actions.cancel(run=held)
        reaper.free_forgotten()
        assert leases.claim("me") is None
        Run.objects.filter(pk=held.pk).update(finished_at=timezone.now() - timedelta(seconds=31))
        reaper.free_forgotten()
        assert leased(leases.claim("me")) == ["GPU-one-0"]


class TestWaitingInVain:
    def detail(self, run: Run) -> str:
        hopeless.note()
        run.refresh_from_db()
        return run.detail

    def test_more_gpus_than_any_host_has(self, make_host, waiting):
        make_host("one", 8000)
        make_host("other", 8000, 4000)
        run, modest = waiting(gpus=2, memory_mb=5000), waiting(memory_mb=5000)
        assert (
            self.detail(run)
            == "No host can take this run: No host has as many GPUs as it wants: 2, of at least 5000 MB."
        )
        assert self.detail(modest) == ""
        make_host("third", 8000, 8000)
        assert self.detail(run) == ""

    def test_there_is_no_host(self, waiting):
        assert self.detail(waiting(gpus=0)) == "No host can take this run: There is no host."

    def test_they_are_lost(self, make_host, waiting):
        make_host("one", 8000)
        run = waiting()
        Gpu.objects.update(lost_at=timezone.now())
        assert self.detail(run) == "No host can take this run: No host has as many GPUs as it wants: 1."

    def test_gvisor_that_lets_no_gpu_through(self, make_host, waiting):
        """The wall is never left out for the GPU's sake."""
        make_host("one", 8000, walls=["standard", "gvisor"])
        run = waiting(walls=["gvisor"])
        assert leases.claim("me") is None
        assert "gvisor, gvisor-gpus, standard" in self.detail(run)
        Host.objects.update(walls=["standard", "gvisor", "gvisor-gpus"])
        assert self.detail(run) == ""
        assert leases.claim("me") == run

    def test_other_details_stay(self, make_host, waiting):
        make_host("one", 8000)
        run = waiting(detail="EngineFault: the engine was away")
        assert self.detail(run) == "EngineFault: the engine was away"


GPU = "GPU-6e4f1b1c-5a0e-4f1c-9b6d-0123456789ab"
OTHER = "GPU-7e4f1b1c-5a0e-4f1c-9b6d-0123456789ab"
MIG = "MIG-0f0e0d0c-5a0e-4f1c-9b6d-0123456789ab"
A100 = f"{GPU}, 40960, {{mode}}, NVIDIA A100-PCIE-40GB\n"
LISTED = f"GPU 0: NVIDIA A100-PCIE-40GB (UUID: {GPU})\n"


class TestWhatNvidiaSmiSays:
    def test_whole(self):
        other = f"{OTHER}, [N/A], [N/A], Tesla T4, the second (GB10)\n"
        listed = LISTED + f"GPU 1: Tesla T4, the second (GB10) (UUID: {OTHER})\n"
        output = A100.format(mode="Disabled") + other + "=\n" + listed
        assert nvidia.devices(output.encode()) == [
            nvidia.Device(GPU, "NVIDIA A100-PCIE-40GB", 40960),
            nvidia.Device(OTHER, "Tesla T4, the second (GB10)", 0),
        ]

    @pytest.mark.parametrize(
        ("profile", "memory_mb"),
        [("1g.5gb", 5000), ("3g.20gb", 20000), ("1c.2g.10gb", 10000), ("1g.10gb+me", 10000), ("1g.24gb-me", 24000)],
    )
    def test_slices(self, profile, memory_mb):
        output = A100.format(mode="Enabled") + "=\n" + LISTED + f"  MIG {profile:<14} Device  0: (UUID: {MIG})\n"
        assert nvidia.devices(output.encode()) == [nvidia.Device(MIG, f"NVIDIA A100-PCIE-40GB {profile}", memory_mb)]

    def test_slices_of_old_drivers(self):
        old = f"MIG-{GPU}/7/0"
        output = A100.format(mode="Enabled") + "=\n" + LISTED + f"  MIG 1g.5gb Device 0: (UUID: {old})\n"
        assert [device.uuid for device in nvidia.devices(output.encode())] == [old]

    def test_to_be_split_but_without_slices(self):
        assert nvidia.devices((A100.format(mode="Enabled") + "=\n" + LISTED).encode()) == []

    def test_none(self):
        assert nvidia.devices(b"=\n") == []

    def test_a_warning_does_no_harm(self):
        warning = "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n"
        output = A100.format(mode="Disabled") + warning + "=\n" + LISTED + warning
        assert len(nvidia.devices(output.encode())) == 1

    @pytest.mark.parametrize(
        "output",
        [
            b"",
            b"No devices were found\n=\n",
            b"\xff\n=\n",
            b"=\n=\n",
            f"=\n{LISTED}".encode(),
            f"{A100.format(mode='Disabled')}=\n".encode(),
            f"{A100.format(mode='Perhaps')}=\n{LISTED}".encode(),
            f"{A100.format(mode='Disabled') * 2}=\n{LISTED}".encode(),
            f"{A100.format(mode='Disabled')}=\n{LISTED.replace('GPU-6', 'GPU-7')}".encode(),
            f"=\n  MIG 1g.5gb Device 0: (UUID: {MIG})\n".encode(),
            f"{A100.format(mode='Enabled')}=\n{LISTED}  MIG 1g.5gb Device 0: (UUID: {MIG},all)\n".encode(),
            (A100.format(mode="Enabled") + "=\n" + LISTED + f"  MIG 1g.5gb Device 0: (UUID: {MIG})\n" * 2).encode(),
            b"x\n" * 1000 + b"=\n",
        ],
    )
    def test_nonsense(self, output):
        with pytest.raises(nvidia.Nonsense):
            nvidia.devices(output)


class TestHowAnEngineKnowsThem:
    @pytest.mark.parametrize(
        ("info", "by_cdi"),
        [
            ({"ServerVersion": "20.10.24+dfsg1"}, False),
            ({"ServerVersion": "27.1.0", "CDISpecDirs": []}, False),
            ({"ServerVersion": "27.1.0", "CDISpecDirs": ["/etc/cdi"]}, True),
            ({"ServerVersion": "27.1.0", "CDISpecDirs": ["/etc/cdi"], "Runtimes": {"nvidia": {}}}, False),
            ({"ServerVersion": "28.3.0", "CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": None}, False),
            ({"ServerVersion": "28.3.0", "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, False),
            ({"ServerVersion": "28.3.0", "DiscoveredDevices": [{"ID": f"nvidia.com/gpu={GPU}"}]}, True),
            ({"ServerVersion": "29.0.0", "DiscoveredDevices": [{"ID": f"nvidia.com/gpu={MIG}"}]}, True),
            ({}, False),
        ],
    )
    def test_by_what_it_says_of_itself(self, info, by_cdi):
        assert devices.by_cdi(info) is by_cdi

    def test_all_of_them_to_look_at(self):
        assert devices.requests([devices.ALL], cdi=False, compute=False) == [
            {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu", "utility"]]}
        ]
        assert devices.requests([devices.ALL], cdi=True) == [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]

    def test_none(self):
        assert devices.requests([], cdi=True) == []
        assert devices.environment([]) == ["NVIDIA_VISIBLE_DEVICES=void"]
