"""People in the admin: who may come in, and who organises. Everything else about them is theirs."""

from typing import ClassVar

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.utils.translation import gettext_lazy as _

from anomed_site.models import User

admin.site.site_header = admin.site.site_title = "AnoMed Arena"
admin.site.index_title = _("Organising and operating")
admin.site.index_template = "admin/arena_index.html"  # with a name of its own: it extends the stock one


@admin.register(User)
class PersonAdmin(UserAdmin[User]):
    """An organiser is a person with staff status in the group *Organisers*."""

    ordering = ("email",)
    list_display = ("email", "first_name", "last_name", "is_staff", "is_active", "date_joined")
    list_filter = ("is_staff", "is_superuser", "is_active", "groups")
    search_fields = ("email", "first_name", "last_name")
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("email", "password")}),
        (_("Personal info"), {"fields": ("first_name", "last_name")}),
        (_("Permissions"), {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        (_("Important dates"), {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ("email", "usable_password", "password1", "password2")}),)
    filter_horizontal: ClassVar[tuple[str, ...]] = ("groups",)
