"""The organisers' pages: stock admin for settings and phases; data, check, publish and close are in admin_pages.py."""

from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from simple_history.admin import SimpleHistoryAdmin

from challenges import actions, locks
from challenges.admin_final import FinalPages
from challenges.forms import ChallengeForm, PhaseForm
from challenges.models import Challenge, Phase


class PhaseInline(admin.TabularInline[Phase, Challenge]):
    model = Phase
    form = PhaseForm
    extra = 0
    max_num = len(Phase.Kind)
    verbose_name_plural = _("phases (dates in the challenge's own time zone)")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "view", obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "change", obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "change", obj) and (obj is None or obj.status == Challenge.Status.DRAFT)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_add_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None or obj.status == Challenge.Status.DRAFT else locks.PHASE_LOCKED


@admin.register(Challenge)
class ChallengeAdmin(FinalPages, SimpleHistoryAdmin):  # type: ignore[misc]  # simple-history has no types
    form = ChallengeForm
    inlines = (PhaseInline,)
    actions = None  # nothing is done to several challenges at once
    list_display = ("title", "status", "scenario", "records", "published_at", "closed_at")
    list_filter = ("status", "scenario")
    list_select_related = ("dataset",)
    search_fields = ("title", "title_de", "slug")
    history_list_display = ("status",)
    change_form_template = "admin/challenges/challenge/change_form.html"
    fieldsets = (
        (None, {"fields": ("title", "title_de", "slug", "summary", "summary_de", "organiser_emails")}),
        (_("Texts"), {"fields": (("overview", "overview_de"), ("data_text", "data_text_de"), ("rules", "rules_de"))}),
        (_("Game"), {"fields": ("scenario", "options", "metric", "white_box", *locks.RANKING, "time_zone")}),
        (
            _("What a container may use"),
            {"fields": (("seconds", "memory_mb", "cpus"), ("gpus", "gpu_memory_mb"), ("output_mb", "pids"), "walls")},
        ),
        (_("Quotas"), {"fields": (("daily_quota", "total_quota"), ("failure_quota", "active_limit"))}),
        (
            _("Constants of the scores"),
            {
                "fields": (
                    ("reference_leak", "utility_threshold", "revealed"),
                    ("aux_size", "core_size", "candidate_size"),
                    ("trivial_utility", "reference_utility"),
                )
            },
        ),
    )

    # Who, and what --------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Challenge]:
        challenges: QuerySet[Challenge] = super().get_queryset(request)
        return challenges if request.user.is_superuser else challenges.filter(organisers=request.user.pk)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "view", obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "delete", obj) and (obj is None or obj.status != Challenge.Status.PUBLISHED)

    def revert_disabled(self, request: HttpRequest, obj: Any = None) -> bool:
        return True  # an old version must not come back behind a check, or after publishing

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        computed = ("trivial_utility", "reference_utility")
        published = obj is not None and obj.status != Challenge.Status.DRAFT
        return (*computed, *(name for name in locks.LOCKED if name not in computed)) if published else computed

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, Any]:
        return {"slug": ("title",)} if obj is None else {}

    @admin.display(description=_("records"))
    def records(self, challenge: Challenge) -> int | None:
        dataset = getattr(challenge, "dataset", None)
        return dataset.rows if dataset else None

    # Writing goes through the actions -------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Challenge, form: forms.ModelForm[Challenge], change: bool) -> None:
        actions.save_challenge(challenge=obj, by=request.user)
        people = form.cleaned_data.get("organiser_emails", [])
        actions.set_organisers(challenge=obj, organisers=people if change else [request.user, *people])

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        phases = formset.save(commit=False)
        for phase in formset.deleted_objects:
            actions.delete_phase(phase=phase)
        for phase in phases:
            actions.save_phase(phase=phase, by=request.user)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change and not form.instance.phases.exists():  # every challenge starts with one
            actions.save_phase(phase=Phase(challenge=form.instance), by=request.user)

    def delete_model(self, request: HttpRequest, obj: Challenge) -> None:
        actions.delete_challenge(challenge=obj)

    # Pages ----------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        pages = [
            path(f"<path:object_id>/{name}/", self.admin_site.admin_view(view), name=f"challenges_challenge_{name}")
            for name, view in self.pages().items()
        ]
        return [*pages, *super().get_urls()]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Reads and shows all dates in the challenge's own time zone."""
        challenge = self.get_object(request, object_id) if object_id else None
        context = {**(extra_context or {}), "steps": self.steps(challenge) if challenge else []}
        with timezone.override(_zone(request, challenge)):
            response: HttpResponse = super().changeform_view(request, object_id, form_url, context)
            return response.render() if isinstance(response, TemplateResponse) else response

    def response_add(self, request: HttpRequest, obj: Challenge, post_url_continue: str | None = None) -> HttpResponse:
        """A new challenge needs its data next."""
        response: HttpResponse = super().response_add(request, obj, post_url_continue)
        if not {"_continue", "_addanother"} & set(request.POST):
            return HttpResponseRedirect(reverse("admin:challenges_challenge_data", args=[obj.pk]))
        return response


def may(request: HttpRequest, verb: str, challenge: Challenge | None) -> bool:
    """Whether the person may do this in the admin at all, and with this challenge."""
    name = f"challenges.{verb}_challenge"
    return request.user.has_perm(name) and (challenge is None or request.user.has_perm(name, challenge))


def _zone(request: HttpRequest, challenge: Challenge | None) -> ZoneInfo:
    """The zone that was just chosen in the form of a draft, else the stored one."""
    draft = challenge is None or challenge.status == Challenge.Status.DRAFT
    chosen = request.POST.get("time_zone", "") if draft else ""
    if chosen in available_timezones():
        return ZoneInfo(chosen)
    return ZoneInfo((challenge or Challenge()).time_zone)
