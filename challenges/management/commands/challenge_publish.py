"""manage.py challenge_publish SLUG"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from challenges import actions
from challenges.actions import Refused
from challenges.models import Challenge


class Command(BaseCommand):
    help = "Publish a draft whose check has passed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")

    def handle(self, *args: Any, **options: Any) -> None:
        challenge = Challenge.objects.filter(slug=options["slug"]).first()
        if challenge is None:
            raise CommandError(f"There is no challenge “{options['slug']}”.")
        try:
            actions.publish(challenge=challenge, by=None)
        except Refused as error:
            raise CommandError(str(error)) from error
