"""Hosts in the admin: what each does and holds, adding one, and taking one out of service."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from sandbox import fleet, inspection, joining
from sandbox.joining import HostError
from sandbox.models import Gpu, Host, Slot

REFRESH_SECONDS = 5


class Untouchable:
    """For admins of rows that are written by actions and workers only."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class SlotInline(Untouchable, admin.TabularInline[Slot, Host]):
    model = Slot
    extra = 0
    raw_id_fields = ("run",)


class GpuInline(Untouchable, admin.TabularInline[Gpu, Host]):
    model = Gpu
    extra = 0


class HostForm(forms.Form):
    """What `manage.py host_add` is told."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=40, help_text=gettext_lazy("For example node2."))
    url = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=300,
        help_text=gettext_lazy("Where its engine will listen, as this server sees it: tcp://192.0.2.7:2376."),
    )
    slots = forms.IntegerField(
        label=gettext_lazy("Slots"),
        min_value=1,
        max_value=fleet.MAX_SLOTS,
        help_text=gettext_lazy("Containers at a time: about as many as it has processors."),
    )
    image_room_gb = forms.IntegerField(
        label=gettext_lazy("Room for images in GB"), min_value=1, max_value=fleet.MAX_IMAGE_ROOM_GB, initial=100
    )


class HostAdmin(Untouchable, admin.ModelAdmin[Host]):
    """Everything but the few things that operators decide is read-only."""

    list_display = ("name", "state", "slots_in_use", "complaint", "offers", "heartbeat", "gpus_in_use", "images", "url")
    list_filter = ("state",)
    readonly_fields = ("images",)
    inlines = (SlotInline, GpuInline)
    actions = ("cordon", "uncordon", "drain", "retire")
    change_form_template = "admin/sandbox/host/change_form.html"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """An engine is given private data: who may name one is as trusted as the server."""
        return request.user.has_perm("sandbox.add_host")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("sandbox.change_host")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Host]:
        return (
            super()
            .get_queryset(request)
            .annotate(
                all_slots=Count("slots", distinct=True),
                used_slots=Count("slots", filter=Q(slots__run__isnull=False), distinct=True),
                all_gpus=Count("gpus", distinct=True),
                used_gpus=Count("gpus", filter=Q(gpus__run__isnull=False), distinct=True),
                all_copies=Count("copies", distinct=True),
            )
        )

    @admin.display(description=gettext_lazy("slots in use"))
    def slots_in_use(self, host: Any) -> str:
        return f"{host.used_slots} / {host.all_slots}"

    @admin.display(description=gettext_lazy("GPUs in use"))
    def gpus_in_use(self, host: Any) -> str:
        return f"{host.used_gpus} / {host.all_gpus}" if host.all_gpus else "–"

    @admin.display(description=gettext_lazy("walls"))
    def offers(self, host: Host) -> str:
        return ", ".join(host.walls) or "–"

    @admin.display(description=gettext_lazy("images"))
    def images(self, host: Any) -> int:
        return int(host.all_copies)

    # Out of service ---------------------------------------------------------------------------------------------------

    @admin.action(description=gettext_lazy("Cordon: no new runs"), permissions=["operate"])
    def cordon(self, request: HttpRequest, hosts: QuerySet[Host]) -> None:
        self._each(request, hosts, fleet.cordon)

    @admin.action(description=gettext_lazy("Uncordon: take runs again"), permissions=["operate"])
    def uncordon(self, request: HttpRequest, hosts: QuerySet[Host]) -> None:
        self._each(request, hosts, fleet.uncordon)

    @admin.action(description=gettext_lazy("Drain: empty when its runs have ended"), permissions=["operate"])
    def drain(self, request: HttpRequest, hosts: QuerySet[Host]) -> HttpResponse | None:
        consequence = _("They take no new runs. When the last run has ended, everything of the arena leaves them.")
        return self._if_sure(request, hosts, fleet.drain, consequence)

    @admin.action(description=gettext_lazy("Retire: forget for good"), permissions=["operate"])
    def retire(self, request: HttpRequest, hosts: QuerySet[Host]) -> HttpResponse | None:
        consequence = _(
            "Their certificates, slots and GPUs are removed, and they are never asked again. Hosts with runs under way "
            "are only cordoned; of a host that does not answer, runs without a lease go elsewhere."
        )
        return self._if_sure(request, hosts, fleet.retire, consequence)

    def _if_sure(self, request: HttpRequest, hosts: QuerySet[Host], verb: Any, consequence: str) -> HttpResponse | None:
        if "sure" in request.POST:
            self._each(request, hosts, verb)
            return None
        more = {"action": verb.__name__, "consequence": consequence, "selected": helpers.ACTION_CHECKBOX_NAME}
        return self._page(request, "confirm", title=_("Are you sure?"), hosts=hosts, **more)

    def _each(self, request: HttpRequest, hosts: QuerySet[Host], verb: Any) -> None:
        done = 0
        for host in hosts:
            try:
                said = verb(host=host)
            except HostError as error:
                self.message_user(request, str(error), messages.ERROR)
                continue
            if said:
                self.message_user(request, f"{host}: {said}", messages.WARNING)
            self.log_change(request, host, verb.__name__)
            done += 1
        if done:
            self.message_user(request, ngettext("%(count)d host.", "%(count)d hosts.", done) % {"count": done})

    # Joining ----------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        join = self.admin_site.admin_view(self.join_view)
        return [path("<int:pk>/join/", join, name="sandbox_host_join"), *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Asks for a name and an address, then leads to the script that makes a machine this host."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = HostForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                host = fleet.add(**form.cleaned_data)
            except HostError as error:
                form.add_error(None, str(error))
            else:
                self.log_addition(request, host, "add")
                return HttpResponseRedirect(reverse("admin:sandbox_host_join", args=[host.pk]))
        return self._page(request, "add", title=_("Add host"), form=form)

    def join_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Shows how joining goes and, when asked, a script with new certificates: nothing of it is kept here."""
        host = Host.objects.asked().filter(pk=pk).first()
        if host is None or not host.url.startswith("tcp:"):
            raise Http404
        if not self.has_add_permission(request):
            raise PermissionDenied
        folder = request.POST.get("folder", joining.folder_for(host))
        script = ""
        if request.method == "POST":
            try:
                script = joining.joining_script(host, folder)
            except HostError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.log_change(request, host, "join")
        elif host.joining:
            inspection.heartbeat(host)
            host.refresh_from_db()
        refresh = REFRESH_SECONDS if host.joining and not script and "wait" in request.GET else 0
        more = {"host": host, "folder": folder, "script": script, "refresh_seconds": refresh}
        return self._page(request, "join", title=_("Join %(host)s") % {"host": host}, **more)

    def _page(self, request: HttpRequest, name: str, **more: Any) -> TemplateResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, **more}
        return TemplateResponse(request, f"admin/sandbox/host/{name}.html", context)
