"""manage.py challenge_results SLUG [--phase final] FOLDER"""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from challenges.models import Challenge, Phase
from submissions import results


class Command(BaseCommand):
    help = "Write the results of a challenge as CSV and Parquet, with a README that explains each column."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("folder", type=Path)
        parser.add_argument("--phase", choices=Phase.Kind.values, help="default: the phase whose boards are shown now")

    def handle(self, *args: Any, **options: Any) -> None:
        challenge = Challenge.objects.filter(slug=options["slug"]).first()
        if challenge is None:
            raise CommandError(f"There is no challenge “{options['slug']}”.")
        wanted = options["phase"]
        phase = challenge.phases.filter(kind=wanted).first() if wanted else challenge.shown_phase
        if phase is None:
            raise CommandError("The challenge has no such phase.")
        try:
            results.dump(challenge=challenge, phase=phase, folder=Path(options["folder"]))
        except results.CannotExport as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"The results of the {phase.kind} phase are in {options['folder']}.")
