"""Makes joined hosts the nodes of one fleet."""

from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from sandbox import swarm_forming
from sandbox.joining import HostError
from sandbox.models import Host


class Command(BaseCommand):
    help = "Makes joined hosts one fleet, a Docker Swarm that places runs on them. The first host is its manager."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("nodes", nargs="+", metavar="HOST[=ADDRESS]", help="ADDRESS: where other nodes reach it")
        parser.add_argument("--slots", type=int, required=True, help="runs at a time on all of them together")

    def handle(self, *args: Any, name: str, nodes: list[str], slots: int, **options: Any) -> None:
        try:
            found = dict(self._node(node) for node in nodes)
            fleet = swarm_forming.form(name=name, manager=next(iter(found)), nodes=found, slots=slots)
        except HostError as error:
            raise CommandError(str(error)) from error
        if fleet.complaint:
            self.stderr.write(fleet.complaint)
        text = _("%(fleet)s takes runs, %(slots)d at a time on %(nodes)d nodes.")
        ready = len(fleet.engine.get("Nodes", ()))
        self.stdout.write(text % {"fleet": fleet, "slots": slots, "nodes": ready})

    def _node(self, text: str) -> tuple[Host, str]:
        name, _equals, address = text.partition("=")
        host = Host.objects.asked().filter(name=name).first()
        if host is None or host.is_fleet:
            raise HostError(_("There is no host %(name)s.") % {"name": name})
        address = address or urlsplit(host.url).hostname or ""
        if not address:
            raise HostError(_("Say where other nodes reach it: %(name)s=ADDRESS.") % {"name": name})
        return host, address
