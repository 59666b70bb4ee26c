"""Makes a machine with Docker Engine a run host."""

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from sandbox import fleet, joining
from sandbox.joining import HostError
from sandbox.models import Host


def gigabytes(text: str) -> int:
    number = int(text)
    if not 1 <= number <= fleet.MAX_IMAGE_ROOM_GB:
        raise ArgumentTypeError(f"1 to {fleet.MAX_IMAGE_ROOM_GB} GB")
    return number


class Command(BaseCommand):
    help = "Adds a run host: makes its certificates, has its engine started, and waits until it answers."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("address", help="tcp://ADDRESS:PORT: where its engine will listen, as this server sees it")
        parser.add_argument("--slots", type=int, required=True, help="containers at a time")
        parser.add_argument("--through", help='a command that runs another there as root: "ssh root@node2"')
        parser.add_argument("--folder", default="", help="where everything goes there: /var/lib/anomed-host-NAME")
        parser.add_argument("--image-room", type=gigabytes, default=100, help="GB for images")
        parser.add_argument("--seconds", type=float, default=600, help="to wait for its first answer")

    def handle(self, *args: Any, name: str, address: str, slots: int, folder: str, **options: Any) -> None:
        try:
            joining.check_folder(folder)
            host = fleet.add(name=name, url=address, slots=slots, image_room_gb=options["image_room"])
            script = joining.joining_script(host, folder)
            if options["through"]:
                self.stdout.write(self._send(host, script, options["through"]))
            else:
                path = joining.keep_script(host, script)
                text = _("Run this script as root on %(host)s, and let nobody else read it; for example:")
                self.stderr.write(text % {"host": name})
                self.stdout.write(f"ssh root@{joining.address_of(address)[0]} sh -s < {path}")
            joining.wait_for_answer(host, options["seconds"])
        except HostError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(_("%(host)s takes runs, %(slots)d at a time.") % {"host": name, "slots": slots})

    def _send(self, host: Host, script: str, through: str) -> str:
        try:
            return joining.send(script, through)
        except HostError as error:
            text = _(
                "%(error)s\nWhen that is mended: manage.py host %(host)s rejoin --through ..., or retire to forget it."
            )
            raise HostError(text % {"error": error, "host": host}) from error
