from django.apps import AppConfig
from django.db.models.signals import post_delete, post_migrate
from django.utils.translation import gettext_lazy as _


class ChallengesConfig(AppConfig):
    name = "challenges"
    verbose_name = _("Challenges")

    def ready(self) -> None:
        from challenges import files, models, permissions  # they need the app registry

        post_migrate.connect(permissions.make_organisers_group, sender=self)
        post_delete.connect(files.remove_with_dataset, sender=models.Dataset)
