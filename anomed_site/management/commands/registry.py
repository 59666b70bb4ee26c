"""`manage.py registry`: the registry that `docker push` goes to. `manage.py serve` runs it."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from submissions.registry import conf
from submissions.registry.keeper import Keeper


class Command(BaseCommand):
    help = "Runs the image registry on this machine and cleans up after it, until Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        if not conf.enabled():
            raise CommandError(f"Install {conf.PROGRAM}, and set ANOMED_REGISTRY to the address that people push to.")
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        with Keeper() as keeper:
            while not stop.wait(1):
                close_old_connections()  # the database is seldom asked, and may have been away
                keeper.mind()
