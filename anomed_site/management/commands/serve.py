"""`manage.py serve`: the whole arena on one machine, until Ctrl-C."""

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from anomed_site.processes import Supervisor
from sandbox.actions import ensure_local_host


class Command(BaseCommand):
    help = "Serves the site and runs its background work on this machine, until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        ensure_local_host(slots=settings.RUN_SLOTS)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        with Supervisor(host=host, port=port) as supervisor:
            self.stdout.write(f"{self._where(host, port)}  (logs: {supervisor.logs}; Ctrl-C ends it)")
            while not stop.wait(1):
                supervisor.mind()

    def _where(self, host: str, port: int) -> str:
        here, public = f"http://{host}:{port}/", f"{settings.SITE_URL}/"
        if here.replace("127.0.0.1", "localhost") == public:
            return f"The arena is at {public}"
        return f"The arena listens at {here}; by ANOMED_SITE_URL people find it at {public}"
