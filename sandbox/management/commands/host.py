"""What operators do with a host: one command for all of it."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from sandbox import fleet, joining
from sandbox.joining import HostError
from sandbox.models import Host

VERBS = {"cordon": fleet.cordon, "uncordon": fleet.uncordon, "drain": fleet.drain}


class Command(BaseCommand):
    help = "Shows a host, or changes what it does: cordon, uncordon, drain, retire, rejoin."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("verb", nargs="?", default="status", choices=["status", *VERBS, "retire", "rejoin"])
        parser.add_argument("--through", help='retire, rejoin: a command that runs another there: "ssh root@node2"')
        parser.add_argument("--folder", default="", help="where it is there, if not where it joined")
        parser.add_argument("--seconds", type=float, default=600, help="rejoin: to wait for its answer")

    def handle(self, *args: Any, name: str, verb: str, **options: Any) -> None:
        host = Host.objects.filter(name=name).first()
        if host is None:
            raise CommandError(_("There is no host %(name)s.") % {"name": name})
        try:
            if verb in VERBS:
                VERBS[verb](host=host)
            elif verb == "retire":
                self._retire(host, options)
            elif verb == "rejoin":
                self._rejoin(host, options)
        except HostError as error:
            raise CommandError(str(error)) from error
        self._show(host)

    def _retire(self, host: Host, options: dict[str, Any]) -> None:
        script, folder = joining.leaving_script(host, options["folder"]), joining.folder_for(host, options["folder"])
        left = fleet.retire(host=host)
        if left:
            self.stderr.write(left)
        if options["through"]:
            self.stdout.write(joining.send(script, options["through"]))
        else:
            text = _("To take its engine off the machine as well, run there: %(path)s/leave")
            self.stderr.write(text % {"path": folder})

    def _rejoin(self, host: Host, options: dict[str, Any]) -> None:
        if not options["through"]:
            raise HostError(_('Say how to reach the machine: --through "ssh root@node2".'))
        fleet.renew(host=host)
        script = joining.joining_script(host, options["folder"])
        self.stdout.write(joining.send(script, options["through"]))
        joining.wait_for_answer(host, options["seconds"])

    def _show(self, host: Host) -> None:
        host.refresh_from_db()
        free = host.slots.filter(run=None).count()
        all_slots = host.slots.count()
        lines = [
            f"{host.name}: {host.get_state_display()}, {host.url}",
            _("slots in use: %(used)d of %(all)d") % {"used": all_slots - free, "all": all_slots},
            _("last answer: %(time)s") % {"time": f"{host.heartbeat:%Y-%m-%d %H:%M:%S} UTC" if host.heartbeat else "-"},
            _("walls: %(walls)s") % {"walls": ", ".join(host.walls) or "-"},
            _("images: %(count)d") % {"count": host.copies.count()},
        ]
        self.stdout.write("\n".join([*lines, host.complaint]).strip())
