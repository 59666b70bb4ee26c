"""For operators: what there is and how it goes. Everything is read-only but the few things that they decide."""

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy

from sandbox import alarms
from sandbox.host_admin import HostAdmin, Untouchable
from sandbox.models import Alarm, Host, Image, Run


class ReadOnlyAdmin(Untouchable, admin.ModelAdmin[Any]):
    """Lists and shows. The sandbox's rows are written by its actions and workers only."""


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    list_display = ("id", "purpose", "step", "owner", "state", "reason", "attempt", "host", "queued_at", "seconds")
    list_filter = ("state", "reason", "purpose", "step", "private", "host")
    search_fields = ("id", "owner")
    list_select_related = ("host",)
    date_hierarchy = "queued_at"
    show_full_result_count = False


@admin.register(Image)
class ImageAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "image_id", "size", "is_base", "created_at")
    list_filter = ("is_base",)
    search_fields = ("image_id", "name")


admin.site.register(Host, HostAdmin)


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    list_display = ("title", "subject", "sentence", "raised_at", "cleared_at")
    list_filter = ("kind",)
    date_hierarchy = "raised_at"

    @admin.display(description=gettext_lazy("kind"), ordering="kind")
    def title(self, alarm: Alarm) -> str:
        return alarms.title(alarm.kind)
