"""For operators: what there is and how it goes. Everything is read-only but the few things that they decide."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from sandbox.models import Alarm, Gpu, Host, Image, Run, Slot


class ReadOnlyAdmin(admin.ModelAdmin[Any]):
    """Lists and shows. The sandbox's rows are written by its actions and workers only."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


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


class SlotInline(admin.TabularInline[Slot, Host]):
    model = Slot
    extra = 0
    can_delete = False
    raw_id_fields = ("run",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class GpuInline(admin.TabularInline[Gpu, Host]):
    model = Gpu
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Host)
class HostAdmin(ReadOnlyAdmin):
    list_display = ("name", "url", "state", "heartbeat", "avoid_until")
    list_filter = ("state",)
    inlines = (SlotInline, GpuInline)


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    list_display = ("kind", "subject", "sentence", "raised_at", "cleared_at")
    list_filter = ("kind",)
    date_hierarchy = "raised_at"
