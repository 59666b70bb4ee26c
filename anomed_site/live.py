"""Live pages: one small event per change of a challenge, as server-sent events.

Browsers hold a connection per page; one watcher per process asks the database once a second for the versions of all
challenges that somebody watches, and wakes who is concerned. What has changed the pages fetch themselves.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import structlog
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_safe

from challenges.models import Challenge

LOOK_EVERY = 1.0  # seconds between two looks at the database
HEARTBEAT = 15.0  # seconds of silence after which a comment keeps proxies from hanging up
RETRY = 3000  # milliseconds after which a browser connects again
MOST_CONNECTIONS = 1000  # per process; each costs a socket and a few kB

log = structlog.get_logger(__name__)


class Watcher:
    """Watches versions on behalf of all connections of one event loop."""

    def __init__(self) -> None:
        self._subscribers: dict[int, set[asyncio.Queue[int]]] = defaultdict(set)
        self._versions: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(len(queues) for queues in self._subscribers.values())

    def subscribe(self, challenge: int, version: int) -> "asyncio.Queue[int]":
        """A queue of the versions of this challenge from now on, `version` first."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        queue.put_nowait(version)
        self._subscribers[challenge].add(queue)
        self._versions.setdefault(challenge, version)
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        return queue

    def unsubscribe(self, challenge: int, queue: "asyncio.Queue[int]") -> None:
        self._subscribers[challenge].discard(queue)
        if not self._subscribers[challenge]:
            del self._subscribers[challenge]
            self._versions.pop(challenge, None)

    async def _watch(self) -> None:
        """Looks once a second until nobody is left; then the thread ends, and with it its database connection."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="live") as thread:
            while self._subscribers:
                await asyncio.sleep(LOOK_EVERY)
                try:
                    versions = await loop.run_in_executor(thread, _versions, list(self._subscribers))
                except DatabaseError:
                    log.warning("live_look_failed", exc_info=True)
                    continue
                self._tell(versions)
            self._task = None  # from here on a new subscriber starts a new watch
            await loop.run_in_executor(thread, _close)

    def _tell(self, versions: dict[int, int]) -> None:
        for challenge, version in versions.items():
            if self._versions.get(challenge) == version:
                continue
            self._versions[challenge] = version
            for queue in self._subscribers.get(challenge, ()):
                queue.put_nowait(version)


_watchers: dict[asyncio.AbstractEventLoop, Watcher] = {}


def _watcher() -> Watcher:
    loop = asyncio.get_running_loop()
    for other in [known for known in _watchers if known.is_closed()]:
        del _watchers[other]
    return _watchers.setdefault(loop, Watcher())


def _versions(challenges: list[int]) -> dict[int, int]:
    """One indexed query, in the watcher's own thread."""
    connection.close_if_unusable_or_obsolete()
    return dict(Challenge.objects.filter(pk__in=challenges).values_list("pk", "version"))


def _close() -> None:
    connection.close()  # looked up here: each thread has a connection of its own


@require_safe
async def live(request: HttpRequest, slug: str) -> HttpResponseBase:
    """The stream of events of one public challenge: `changed` with its version, at once and after every change."""
    found = await Challenge.objects.visible().filter(slug=slug).values_list("pk", "version").afirst()
    if found is None:
        return HttpResponse(status=404)
    watcher = _watcher()
    if len(watcher) >= MOST_CONNECTIONS:
        return HttpResponse(status=503, headers={"Retry-After": "60"})
    stream = StreamingHttpResponse(_events(watcher, *found), content_type="text/event-stream")
    stream.headers["Cache-Control"] = "no-store"
    stream.headers["X-Accel-Buffering"] = "no"  # tells reverse proxies to pass each event on at once
    return stream


async def _events(watcher: Watcher, challenge: int, version: int) -> AsyncIterator[bytes]:
    queue = watcher.subscribe(challenge, version)
    try:
        yield f"retry: {RETRY}\n\n".encode()
        while True:
            try:
                version = await asyncio.wait_for(queue.get(), HEARTBEAT)
            except TimeoutError:
                yield b": still here\n\n"
            else:
                yield f"event: changed\nid: {version}\ndata: {version}\n\n".encode()
    finally:
        watcher.unsubscribe(challenge, queue)
