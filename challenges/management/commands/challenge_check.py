"""manage.py challenge_check SLUG"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from challenges import actions
from challenges.actions import Refused
from challenges.management.reporting import say_report
from challenges.models import Challenge, CheckReport


class Command(BaseCommand):
    help = "Run the check before publishing and print its report; the exit status is 0 if it passed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")

    def handle(self, *args: Any, **options: Any) -> None:
        challenge = Challenge.objects.filter(slug=options["slug"]).first()
        if challenge is None:
            raise CommandError(f"There is no challenge “{options['slug']}”.")
        try:
            report = actions.check_now(challenge=challenge)
        except Refused as error:
            raise CommandError(str(error)) from error
        say_report(self, report)
        if report.state != CheckReport.State.PASSED:
            raise CommandError("The check has not passed.")
