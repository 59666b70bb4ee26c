"""`manage.py housekeeping`: what the daily tasks of retention do, now and by hand; or only what they would do."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.template.defaultfilters import filesizeformat

from sandbox import retention as runs_and_images
from submissions import retention as entries


class Command(BaseCommand):
    help = "Removes logs, results, releases, images and uploads that are older than the settings say."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="remove nothing; print what would go")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        tallies = [*runs_and_images.sweep(dry_run=dry_run), *entries.sweep(dry_run=dry_run)]
        self.stdout.write("Would go:" if dry_run else "Gone:")
        for tally in tallies:
            self.stdout.write(f"{tally.number:>8}  {filesizeformat(tally.size):>10}  {tally.what}")
        self.stdout.write(f"{'':>8}  {filesizeformat(sum(tally.size for tally in tallies)):>10}  in all")
