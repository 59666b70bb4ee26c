"""Looks at a host's GPUs now: what `manage.py host_gpus NAME` prints is what runs can get there."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from sandbox import gpus
from sandbox.engine import EngineFault
from sandbox.models import Host


class Command(BaseCommand):
    help = "Looks for the GPUs of a host now, notes and prints them, or says why it has none to give."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--forget", action="store_true", help="strike missing GPUs off the books: they are gone")

    def handle(self, *args: Any, name: str, forget: bool, **options: Any) -> None:
        host = Host.objects.asked().engines().filter(name=name).first()
        if host is None:
            raise CommandError(_("There is no host %(name)s.") % {"name": name})
        try:
            trouble = gpus.look(host)
            if forget and gpus.forget_lost(host):
                trouble = gpus.look(host)
            if not trouble and not host.gpus.exists():
                gpus.find(host)
        except gpus.Unusable as unusable:
            trouble = str(unusable)
        except EngineFault as fault:
            raise CommandError(_("The engine could not be asked: %(fault)s") % {"fault": fault}) from fault
        for gpu in host.gpus.all():
            missing = "" if gpu.lost_at is None else _("missing since %(date)s") % {"date": f"{gpu.lost_at:%F %R}"}
            self.stdout.write("\t".join((gpu.uuid, gpu.name, f"{gpu.memory_mb} MB", missing)).rstrip())
        if trouble:
            raise CommandError(trouble)
        if not host.gpus.exists():
            self.stdout.write(_("This host has no GPUs."))
