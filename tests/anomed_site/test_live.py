"""Server-sent events through the real ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.test import Client
from django.urls import reverse

from anomed_site import live
from anomed_site.asgi import application
from challenges.models import Challenge

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY", 0.05)


class Listener:
    """A browser that listens to a challenge."""

    def __init__(self, communicator: Any) -> None:
        self.communicator = communicator
        self.start: dict[str, Any] = {}

    async def read(self, until: str) -> str:
        """What is sent until a piece holds `until`."""
        text = ""
        while until not in text:
            message = await self.communicator.receive_output(timeout=5)
            text += message.get("body", b"").decode()
        return text


@asynccontextmanager
async def listening(slug: str) -> AsyncIterator[Listener]:
    path = f"/live/{slug}/"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }  # fmt: skip
    listener = Listener(ApplicationCommunicator(application, scope))
    await listener.communicator.send_input({"type": "http.request", "body": b"", "more_body": False})
    listener.start = await listener.communicator.receive_output(timeout=5)
    yield listener
    await listener.communicator.send_input({"type": "http.disconnect"})
    await listener.communicator.wait(timeout=5)


def run(scenario: Any) -> None:
    """Runs a coroutine in an event loop of its own and lets the watcher end, so that its connection is closed."""

    async def whole() -> None:
        await scenario
        watcher = live._watcher()
        async with asyncio.timeout(5):
            while watcher._task is not None or asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.sleep(0.02)
        assert len(watcher) == 0

    asyncio.run(whole())


def test_a_change_reaches_everybody_who_watches(clinic: Challenge) -> None:
    async def scenario() -> None:
        async with listening("clinic") as one, listening("clinic") as two:
            headers = dict(one.start["headers"])
            assert headers[b"Content-Type"] == b"text/event-stream"
            assert headers[b"Cache-Control"] == b"no-store"
            first = await one.read("data: ")
            assert "retry: 3000" in first
            assert f"event: changed\nid: {clinic.version}\ndata: {clinic.version}\n" in first
            await two.read("data: ")
            await sync_to_async(clinic.mark_changed)()
            for listener in (one, two):
                assert f"data: {clinic.version + 1}\n" in await listener.read("data: ")

    run(scenario())


def test_silence_is_filled_with_heartbeats(clinic: Challenge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0.1)

    async def scenario() -> None:
        async with listening("clinic") as listener:
            assert ": still here\n\n" in await listener.read(": still here")

    run(scenario())


def test_a_process_takes_only_so_many_listeners(clinic: Challenge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_CONNECTIONS", 1)

    async def scenario() -> None:
        async with listening("clinic") as first:
            await first.read("data: ")
            async with listening("clinic") as second:
                assert second.start["status"] == 503
                assert dict(second.start["headers"])[b"Retry-After"] == b"60"

    run(scenario())


def test_a_lost_database_is_asked_again(clinic: Challenge, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = live._versions, [live.DatabaseError("gone")]

    def flaky(challenges: list[int]) -> dict[int, int]:
        if failures:
            raise failures.pop()
        return real(challenges)

    monkeypatch.setattr(live, "_versions", flaky)

    async def scenario() -> None:
        async with listening("clinic") as listener:
            await listener.read("data: ")
            await sync_to_async(clinic.mark_changed)()
            assert f"data: {clinic.version + 1}\n" in await listener.read("data: ")

    run(scenario())
    assert not failures


def test_drafts_have_no_events(clinic: Challenge) -> None:
    Challenge.objects.update(status="draft")
    assert Client().get(reverse("live", args=["clinic"])).status_code == 404
    assert Client().get(reverse("live", args=["none"])).status_code == 404
    assert Client().post(reverse("live", args=["clinic"])).status_code == 405
