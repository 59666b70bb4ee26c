"""Registers a base image, whose layers participants' archives may leave out."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from sandbox import actions
from sandbox.reasons import Rejected


class Command(BaseCommand):
    help = "Registers a base image from an archive that `docker save` wrote. Its layers become public."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("archive", type=Path)
        parser.add_argument("name")

    def handle(self, *args: Any, archive: Path, name: str, **options: Any) -> None:
        if not archive.is_file():
            raise CommandError(_("There is no file %(path)s.") % {"path": archive})
        try:
            image = actions.register_base_image(archive=archive, name=name)
        except Rejected as rejected:
            raise CommandError(rejected.detail) from rejected
        self.stdout.write(f"{image.image_id} {name}")
