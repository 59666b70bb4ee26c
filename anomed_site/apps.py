from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AnomedSiteConfig(AppConfig):
    name = "anomed_site"
    verbose_name = _("Site")
