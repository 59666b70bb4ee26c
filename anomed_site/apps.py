from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AnomedSiteConfig(AppConfig):
    name = "anomed_site"
    verbose_name = _("Site")

    def ready(self) -> None:
        from django_q.signals import post_execute_in_worker, pre_execute  # imports models

        from anomed_site import clusters
        from anomed_site.heartbeat import busy
        from sandbox import alarms

        pre_execute.connect(busy.begin)
        post_execute_in_worker.connect(busy.end)
        alarms.watch(clusters.conditions, clusters.KINDS)
