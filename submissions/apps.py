from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class SubmissionsConfig(AppConfig):
    name = "submissions"
    verbose_name = _("Submissions")

    def ready(self) -> None:
        from challenges import finals, walls  # models exist only now
        from sandbox import alarms as operators
        from sandbox import inspection, purposes, retention
        from submissions import alarms, controls, permissions  # noqa: F401 -- the latter registers who may do what
        from submissions.finals import Conductor
        from submissions.purpose import BlindControl, SubmissionStep
        from submissions.registry import alarms as registry
        from submissions.retention import StepKeeper
        from submissions.steps import PURPOSE, name_priorities

        purposes.register(PURPOSE, SubmissionStep())
        purposes.register(controls.PURPOSE, BlindControl())
        name_priorities()
        walls.ask(inspection.offered)
        finals.register(Conductor())
        retention.register(StepKeeper())
        operators.watch(alarms.conditions, alarms.KINDS)
        operators.watch(registry.conditions, registry.KINDS)
        post_migrate.connect(schedule_sweeps, sender=self)


def schedule_sweeps(using: str, **kwargs: Any) -> None:
    """Sees to it that what was lost, abandoned or not told of is looked after, and that what is old goes."""
    from django_q.models import Schedule  # models cannot be imported before the apps are ready

    for name, func in (
        ("submissions.sweep", "submissions.tasks.sweep"),
        ("submissions.registry", "submissions.registry.pushes.sweep"),
    ):
        Schedule.objects.using(using).update_or_create(
            name=name,
            defaults={
                "func": func,
                "schedule_type": Schedule.MINUTES,
                "minutes": 1,
                "repeats": -1,
                "cluster": "web",
            },
        )
    Schedule.objects.using(using).update_or_create(
        name="submissions.clean",
        defaults={"func": "submissions.tasks.clean", "schedule_type": Schedule.DAILY, "repeats": -1, "cluster": "web"},
    )
