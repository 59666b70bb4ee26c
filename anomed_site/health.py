"""Whether this process can serve: its database answers and its private folder takes files."""

import dataclasses
import shutil
import tempfile
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable
from health_check.views import HealthCheckView

from anomed_site import heartbeat

# With less than this nothing can be received or run, and soon not even be recorded.
LEAST_FREE = 10**9  # bytes
MOST_SILENT = 60  # seconds


@dataclasses.dataclass
class PrivateFolder(HealthCheck):
    """Uploads and results go below the private folder: it must be writable and have room."""

    def run(self) -> None:
        try:
            with tempfile.TemporaryFile(dir=settings.PRIVATE_ROOT) as file:
                file.write(b"healthy")
            free = shutil.disk_usage(settings.PRIVATE_ROOT).free
        except OSError as error:
            raise ServiceUnavailable("The private folder cannot be written.") from error
        if free < LEAST_FREE:
            raise ServiceUnavailable("The disk of the private folder is full.")


@dataclasses.dataclass
class Clusters(HealthCheck):
    """The clusters that this machine's supervisor has started give signs of life."""

    def run(self) -> None:
        # everybody may ask: a host has its own cluster `runs-HOST`, and its name is nobody's business
        clusters = heartbeat.expected()
        silent = sorted({name.partition("-")[0] for name in clusters if heartbeat.signs(name).silent > MOST_SILENT})
        if silent:
            raise ServiceUnavailable(f"No sign of life of the cluster: {', '.join(silent)}.")


class Healthz(HealthCheckView):
    """JSON for machines: 200 if all is well, else 500 and the name of what is not."""

    checks = ("health_check.checks.Database", PrivateFolder, Clusters)

    async def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with self.get_executor() as executor:
            results = [await check.get_result(executor) for check in self.get_checks()]
        report = {type(result.check).__name__: str(result.error or "OK") for result in results}
        return JsonResponse(report, status=500 if any(result.error for result in results) else 200)
