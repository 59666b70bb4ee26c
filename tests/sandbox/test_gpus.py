"""GPUs: who gets which, for how long, and what happens to one that is lost. The rows here are invented."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from sandbox import actions, leases, reaper
from sandbox.models import Gpu, Host, Image, Run, Slot
from sandbox.reasons import Reason


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
