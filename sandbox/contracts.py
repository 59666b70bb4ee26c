"""How a container and the platform talk: by files, or as web servers do."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Contract(TextChoices):
    """Values are stable: they are stored, served by the API, and written on images."""

    FILES = "anomed/1", _("files (anomed/1)")
    WEB = "web/1", _("web server (web/1)")
