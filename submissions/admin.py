"""What organisers see of the entries in their challenges: to look, to disqualify, never to edit."""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from submissions import actions
from submissions.models import Control, Duel, Release, Submission, Team


class OwnChallenges(admin.RelatedFieldListFilter):
    """The filter by challenge: offers organisers their own only, because the titles of drafts are their organisers'."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Any:
        own = {} if request.user.is_superuser else {"organisers": request.user}
        ordering = self.field_admin_ordering(field, request, model_admin)
        return field.get_choices(include_blank=False, ordering=ordering, limit_choices_to=own)


class _ReadOnly(admin.ModelAdmin[Any]):
    """Rows that only the game itself writes. Organisers see those of their own challenges."""

    challenge_lookup: ClassVar[str]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        return rows.filter(**{f"{self.challenge_lookup}__organisers": request.user})

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Team)
class TeamAdmin(_ReadOnly):
    challenge_lookup = "challenge"
    list_display = ("name", "challenge", "created_at")
    list_filter = (("challenge", OwnChallenges),)
    list_select_related = ("challenge",)
    search_fields = ("name",)
    fields = ("name", "challenge", "created_at")


@admin.register(Submission)
class SubmissionAdmin(_ReadOnly):
    challenge_lookup = "challenge"
    list_display = (
        "name", "challenge", "kind", "role", "contract", "team", "state", "active", "failure_reason", "created_at",
    )  # fmt: skip
    list_filter = (("challenge", OwnChallenges), "kind", "contract", "state", "role")
    list_select_related = ("challenge", "team")
    search_fields = ("name", "team__name", "note")
    date_hierarchy = "created_at"
    actions = ("disqualify",)
    fields = (
        "id", "challenge", "team", "kind", "role", "contract", "name", "note", "image", "state", "active", "picked",
        "late", "failure_reason", "failure_cause", "created_at", "ready_at", "ended_at",
    )  # fmt: skip

    def has_disqualify_permission(self, request: HttpRequest) -> bool:
        return self.has_module_permission(request)

    @admin.action(description=_("Disqualify the selected entries"), permissions=["disqualify"])
    def disqualify(self, request: HttpRequest, queryset: QuerySet[Submission]) -> None:
        for submission in queryset:
            try:
                actions.disqualify(submission=submission, by=request.user)
            except actions.Refused as refusal:
                self.message_user(request, f"{submission}: {refusal}", messages.ERROR)


@admin.register(Release)
class ReleaseAdmin(_ReadOnly):
    challenge_lookup = "submission__challenge"
    list_display = ("submission", "phase", "seed", "utility", "sha256", "created_at")
    list_select_related = ("submission", "phase__challenge")
    fields = ("submission", "phase", "seed", "utility", "sha256", "created_at")


@admin.register(Duel)
class DuelAdmin(_ReadOnly):
    challenge_lookup = "attack__challenge"
    list_display = ("attack", "defense", "seed", "state", "reason", "mean_leak", "finished_at")
    list_filter = (("attack__challenge", OwnChallenges), "state", "reason")
    list_select_related = ("attack", "release__submission")
    fields = (
        "attack", "release", "state", "reason", "mean_leak", "leaks", "errors", "detail", "created_at", "finished_at",
    )  # fmt: skip

    @admin.display(description=_("defense"))
    def defense(self, duel: Duel) -> str:
        return str(duel.release.submission)

    @admin.display(description=_("seed"))
    def seed(self, duel: Duel) -> int:
        return duel.release.seed


@admin.register(Control)
class ControlAdmin(_ReadOnly):
    challenge_lookup = "attack__challenge"
    list_display = ("attack", "anchor", "phase", "seed", "state", "reason", "leak", "error", "finished_at")
    list_filter = (("attack__challenge", OwnChallenges), "state", "reason")
    list_select_related = ("attack", "twin__defense", "twin__phase__challenge")
    fields = ("attack", "anchor", "phase", "seed", "state", "reason", "leak", "error", "detail", "finished_at")
    readonly_fields = ("anchor", "phase", "seed")

    @admin.display(description=_("anchor"))
    def anchor(self, control: Control) -> str:
        return str(control.twin.defense)

    @admin.display(description=_("phase"))
    def phase(self, control: Control) -> str:
        return str(control.twin.phase.get_kind_display())

    @admin.display(description=_("seed"))
    def seed(self, control: Control) -> int:
        return control.twin.seed
