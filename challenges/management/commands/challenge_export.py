"""manage.py challenge_export SLUG FOLDER"""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from challenges import bundles
from challenges.models import Challenge


class Command(BaseCommand):
    help = "Write a challenge, private data included, into an empty folder that challenge_import reads."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        challenge = Challenge.objects.filter(slug=options["slug"]).first()
        if challenge is None:
            raise CommandError(f"There is no challenge “{options['slug']}”.")
        try:
            bundles.dump(challenge=challenge, folder=Path(options["folder"]))
        except bundles.BundleError as error:
            raise CommandError(str(error)) from error
