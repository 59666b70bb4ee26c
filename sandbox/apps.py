"""The sandbox: how strangers' images run next to patient data."""

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class SandboxConfig(AppConfig):
    name = "sandbox"
    label = "sandbox"
    verbose_name = _("Sandbox")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_q.signals import post_spawn  # imports models

        from sandbox import system_checks, tasks

        checks.register(system_checks.walls)
        post_migrate.connect(schedule_sweeps, sender=self)
        post_spawn.connect(tasks.begin)


def schedule_sweeps(using: str, **kwargs: Any) -> None:
    """Sees to it that reaper and alarms come by each minute, a look for GPUs every five, and retention each day."""
    from django_q.models import Schedule  # models cannot be imported before the apps are ready

    for name, minutes in (("sweep", 1), ("look", 1), ("look_at_gpus", 5)):
        Schedule.objects.using(using).update_or_create(
            name=f"sandbox.{name}",
            defaults={
                "func": f"sandbox.tasks.{name}",
                "schedule_type": Schedule.MINUTES,
                "minutes": minutes,
                "repeats": -1,
                "cluster": "web",
            },
        )
    Schedule.objects.using(using).update_or_create(
        name="sandbox.clean",
        defaults={"func": "sandbox.tasks.clean", "schedule_type": Schedule.DAILY, "repeats": -1, "cluster": "web"},
    )
