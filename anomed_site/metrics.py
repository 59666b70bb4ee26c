"""Numbers for Prometheus at /metrics: of the arena from the database, of requests from this process's memory.

With several processes behind one address, set PROMETHEUS_MULTIPROC_DIR to an empty folder before they start: they then
keep their counts of requests there, and each answers for all.
"""

import os
import secrets
import time
from typing import Any, Final

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from anomed_site.clusters import ClustersCollector
from sandbox.metrics import SandboxCollector
from submissions.metrics import SubmissionsCollector

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Labels are names of our own views, known methods and statuses: whoever sends a request can make up none of them.
REQUESTS = Counter("anomed_http_requests", "Requests that were answered.", ["view", "method", "status"])
SECONDS = Histogram(
    "anomed_http_request_seconds",
    "From a request to the beginning of its answer.",
    ["view"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


@sync_and_async_middleware
def counted(get_response: Any) -> Any:
    """Counts and times every request."""
    if iscoroutinefunction(get_response):

        async def count_async(request: HttpRequest) -> HttpResponseBase:
            began = time.perf_counter()
            response: HttpResponseBase = await get_response(request)
            _note(request, response, began)
            return response

        return count_async

    def count(request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        response: HttpResponseBase = get_response(request)
        _note(request, response, began)
        return response

    return count


def _note(request: HttpRequest, response: HttpResponseBase, began: float) -> None:
    match = request.resolver_match
    view = (match.view_name if match else "") or "none"  # static files, and addresses that do not exist
    method = request.method if request.method in _METHODS else "other"
    REQUESTS.labels(view, method, str(response.status_code)).inc()
    SECONDS.labels(view).observe(time.perf_counter() - began)


@require_safe
def scrape(request: HttpRequest) -> HttpResponse:
    """All metrics, for whoever knows the token. To everybody else there is nothing here."""
    if not _may_scrape(request):
        raise Http404
    books = CollectorRegistry()
    books.register(SandboxCollector())
    books.register(SubmissionsCollector())
    books.register(ClustersCollector())
    return HttpResponse(generate_latest(books) + generate_latest(_requests()), content_type=CONTENT_TYPE_LATEST)


def _may_scrape(request: HttpRequest) -> bool:
    token: str = settings.METRICS_TOKEN
    given = request.headers.get("Authorization", "")
    return bool(token) and secrets.compare_digest(given.encode(), f"Bearer {token}".encode())


def _requests() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
