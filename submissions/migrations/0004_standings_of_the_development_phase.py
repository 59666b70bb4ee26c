from typing import Any

from django.db import migrations


def give_a_phase(apps: Any, schema_editor: Any) -> None:
    """Standings from before there were finals belong to the development phase of their challenge, or its only one."""
    Phase = apps.get_model("challenges", "Phase")
    Standing = apps.get_model("submissions", "Standing")
    for phase in Phase.objects.order_by("-kind", "pk"):  # "final" comes first, so that "development" has the last word
        rows = Standing.objects.filter(submission__challenge=phase.challenge_id)
        rows.update(phase=phase)
    Standing.objects.filter(phase=None).delete()


class Migration(migrations.Migration):

    dependencies = [
        ('submissions', '0003_statistics'),
    ]

    operations = [
        migrations.RunPython(give_a_phase, migrations.RunPython.noop, elidable=True),
    ]
