"""The report of a check on a terminal."""

from django.core.management.base import BaseCommand

from challenges.models import CheckReport


def say_report(command: BaseCommand, report: CheckReport, *, loud: bool = True) -> None:
    """Writes every finding; unless `loud`, only what kept the check from passing."""
    for finding in report.findings:
        if loud or finding.level == "error":
            stream = command.stderr if finding.level == "error" else command.stdout
            stream.write(f"{finding.level_name:>8}  {finding.title}: {finding.text}")
