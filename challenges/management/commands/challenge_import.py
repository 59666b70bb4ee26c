"""manage.py challenge_import FOLDER [--slug SLUG] [--organiser EMAIL] [--publish]"""

from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from challenges import actions, bundles
from challenges.actions import Refused
from challenges.management.reporting import say_report


class Command(BaseCommand):
    help = (
        "Make a draft challenge of a folder (docs/organisers.md), or bring the draft of the same slug in line with it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument("--slug", default="", help="use this short name instead of the folder's")
        parser.add_argument("--organiser", default="", metavar="EMAIL", help="who organises the challenge")
        parser.add_argument("--publish", action="store_true", help="run the check and publish if it passes")

    def handle(self, *args: Any, **options: Any) -> None:
        people = get_user_model()._default_manager
        organiser = people.filter(email__iexact=options["organiser"]).first() if options["organiser"] else None
        if options["organiser"] and organiser is None:
            raise CommandError(f"Nobody has signed up with the address {options['organiser']} yet.")
        try:
            challenge = bundles.load(folder=Path(options["folder"]), by=organiser, slug=options["slug"])
            if organiser is not None:
                challenge.organisers.add(organiser)
            if options["publish"]:
                report = actions.check_now(challenge=challenge)
                say_report(self, report, loud=options["verbosity"] > 0)
                actions.publish(challenge=challenge, by=organiser)
        except (bundles.BundleError, Refused) as error:
            raise CommandError(str(error)) from error
        if options["verbosity"] > 0:
            self.stdout.write(f"{challenge.slug}: {challenge.get_status_display()}")
