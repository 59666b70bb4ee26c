"""Removes what the sandbox has on the engines: for shutting down, when no worker is running."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from sandbox import reaper


class Command(BaseCommand):
    help = "Removes every container and volume of this installation from its hosts. Stop the workers first."

    def handle(self, *args: Any, **options: Any) -> None:
        faults = reaper.remove_everything()
        if faults:
            raise CommandError("; ".join(f"{host}: {fault}" for host, fault in faults.items()))
