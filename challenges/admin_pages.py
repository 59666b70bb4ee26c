"""Pages of the admin beside the form of a challenge: its data, its check, publishing, closing."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from challenges import actions, tables
from challenges.actions import Refused
from challenges.forms import ColumnsForm, DataForm, SampleForm
from challenges.models import Challenge, Dataset
from challenges.schema import TableError
from challenges.uploads import generated_sample, own_sample, staged_table

if TYPE_CHECKING:
    Base = ModelAdmin[Challenge]
else:
    Base = object

Page = Callable[[HttpRequest, str], HttpResponse]
_SHOWN_ROWS = 8
_REFRESH_SECONDS = 3
_TYPES = {
    "integer": gettext_lazy("whole number"),
    "number": gettext_lazy("number"),
    "category": gettext_lazy("category"),
}


class OrganiserPages(Base):
    """Views of a ModelAdmin of challenges; each looks for the object and the permission itself."""

    def pages(self) -> dict[str, Page]:
        """The views by the name of their address: `admin:challenges_challenge_<name>`."""
        return {
            "data": self.data_view,
            "check": self.check_view,
            "publish": self.publish_view,
            "close": self.close_view,
        }

    def steps(self, challenge: Challenge) -> list[dict[str, str]]:
        """The way to a published challenge, each step with where it stands; no link where it cannot be taken."""
        dataset = Dataset.objects.filter(challenge=challenge).first()
        report = challenge.reports.first()
        cannot_publish, cannot_close = actions.publish_obstacle(challenge), actions.close_obstacle(challenge)
        rows = _("%(rows)s records, %(sample)s in the sample")
        said = rows % {"rows": dataset.rows, "sample": dataset.sample_rows} if dataset else _("no table yet")
        return [
            {"name": _("Settings and texts"), "link": address("change", challenge), "state": ""},
            {"name": _("Data"), "link": address("data", challenge), "state": said},
            {
                "name": _("Check"),
                "link": address("check", challenge),
                "state": str(report.get_state_display()) if report else _("not run yet"),
            },
            {
                "name": _("Publish"),
                "link": "" if cannot_publish else address("publish", challenge),
                "state": cannot_publish,
            },
            {"name": _("Close"), "link": "" if cannot_close else address("close", challenge), "state": cannot_close},
        ]

    # Data -------------------------------------------------------------------------------------------------------------

    def data_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The private table: upload, profile, roles; the public sample."""
        challenge = self._challenge(request, object_id)
        dataset = Dataset.objects.filter(challenge=challenge).first()
        wanted = request.POST.get("do", "")
        forms: dict[str, Any] = {
            "upload": DataForm(*_posted(request, wanted == "upload")),
            "sample": SampleForm(*_posted(request, wanted == "sample")),
        }
        if dataset is not None:
            forms["columns"] = ColumnsForm(dataset.schema, *_posted(request, wanted == "columns"))
        if request.method == "POST" and self._do_with_data(request, challenge, dataset, wanted, forms):
            return HttpResponseRedirect(address("data", challenge))
        context = {"forms": forms, "dataset": dataset, **_about(dataset, forms)}
        return self._page(request, challenge, "data", _("Data"), context)

    def _do_with_data(
        self, request: HttpRequest, challenge: Challenge, dataset: Dataset | None, wanted: str, forms: dict[str, Any]
    ) -> bool:
        """Does what one of the page's forms asks for; says on that form why not, if it cannot."""
        form: Any = forms.get(wanted)
        if form is not None and not form.is_valid():
            return False
        try:
            if wanted == "upload":
                _upload(request, challenge, form)
            elif dataset is not None and wanted == "columns":
                _choose_roles(request, challenge, dataset, form)
            elif dataset is not None and wanted in ("sample", "generate"):
                _change_sample(request, challenge, dataset, form)
            else:
                return False
        except (TableError, Refused) as error:
            if form is None:
                messages.error(request, str(error))
                return True
            form.add_error("file" if "file" in form.fields else None, str(error))
            return False
        return True

    # Check, publish, close --------------------------------------------------------------------------------------------

    def check_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The report of the last check, and the button that starts another. Reloads itself while one is running."""
        challenge = self._challenge(request, object_id)
        if request.method == "POST":
            try:
                actions.start_check(challenge=challenge, by=request.user)
            except Refused as refused:
                messages.warning(request, str(refused))
            return HttpResponseRedirect(address("check", challenge))
        report = challenge.reports.first()
        obstacle = actions.check_obstacle(challenge)
        running = report is not None and report.is_running
        context = {
            "report": report,
            "obstacle": obstacle,
            "outdated": report is not None and not running and _is_outdated(challenge),
            "refresh_seconds": _REFRESH_SECONDS if running else None,
        }
        return self._page(request, challenge, "check", _("Check before publishing"), context)

    def publish_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks for confirmation, then publishes."""
        challenge = self._challenge(request, object_id)
        report = challenge.reports.first()
        texts = {
            "obstacle": actions.publish_obstacle(challenge),
            "question": _("Publish “%(title)s”?") % {"title": challenge.title},
            "consequence": _(
                "Everybody will see the challenge. Its data, limits, constants and anchors are then fixed for good; "
                "texts, quotas and later dates can still be changed."
            ),
            "findings": [finding for finding in report.findings if finding.level == "warning"] if report else [],
            "button": _("Publish"),
        }
        done = _("The challenge is published.")
        return self._confirmed(request, challenge, "publish", _("Publish"), texts, actions.publish, done)

    def close_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks for confirmation, then closes."""
        challenge = self._challenge(request, object_id)
        texts = {
            "obstacle": actions.close_obstacle(challenge),
            "question": _("Close “%(title)s”?") % {"title": challenge.title},
            "consequence": _(
                "No entry will be taken any more; the boards stay. A closed challenge cannot be opened again."
            ),
            "warning": _about_final(challenge),
            "button": _("Close"),
        }
        done = _("The challenge is closed.")
        return self._confirmed(request, challenge, "close", _("Close"), texts, actions.close, done)

    def _confirmed(
        self,
        request: HttpRequest,
        challenge: Challenge,
        name: str,
        title: str,
        texts: dict[str, Any],
        action: Callable[..., Challenge],
        done: str,
    ) -> HttpResponse:
        if not request.user.has_perm(f"challenges.{name}_challenge", challenge):
            raise PermissionDenied
        back = address("final" if challenge.final and name in ("freeze", "reveal") else "change", challenge)
        if request.method == "POST":
            try:
                action(challenge=challenge, by=request.user)
                messages.success(request, done)
            except Refused as refused:
                messages.error(request, str(refused))
            return HttpResponseRedirect(back)
        return self._page(request, challenge, "confirm", title, {"back": back, **texts})

    # ------------------------------------------------------------------------------------------------------------------

    def _challenge(self, request: HttpRequest, object_id: str) -> Challenge:
        challenge = self.get_object(request, unquote(object_id))
        if challenge is None:
            raise Http404
        if not self.has_change_permission(request, challenge):
            raise PermissionDenied
        return challenge

    def _page(
        self, request: HttpRequest, challenge: Challenge, template: str, title: str, context: dict[str, Any]
    ) -> HttpResponse:
        whole = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "original": challenge,
            "title": title,
            "steps": self.steps(challenge),
            "draft": challenge.status == Challenge.Status.DRAFT,
            **context,
        }
        with timezone.override(ZoneInfo(challenge.time_zone)):
            return render(request, f"admin/challenges/challenge/{template}.html", whole)


def address(name: str, challenge: Challenge) -> str:
    """Where a page about the challenge is."""
    return reverse(f"admin:challenges_challenge_{name}", args=[challenge.pk])


def _about_final(challenge: Challenge) -> str:
    """What closing means for a final that is not over; empty if there is none."""
    final = challenge.sealed_final
    if final is None:
        return ""
    if final.is_frozen:
        return _("Late entries end here. The runs of the final go on, and you can still reveal its results.")
    return _("Its final will not take place: the picks are not frozen yet.")


def _posted(request: HttpRequest, meant: bool) -> tuple[Any, ...]:
    return (request.POST, request.FILES) if meant else ()


def _is_outdated(challenge: Challenge) -> bool:
    """Whether the last report is about other data or settings than the present ones."""
    report = challenge.reports.first()
    return report is not None and challenge.status == Challenge.Status.DRAFT and not actions.is_current(report)


def _upload(request: HttpRequest, challenge: Challenge, form: DataForm) -> None:
    given = form.cleaned_data
    with staged_table(
        given["file"], given["file"].name, target=given["target"], patient=given["patient"], task=given["task"]
    ) as table:
        actions.set_data(challenge=challenge, table=table, by=request.user)
    messages.success(request, _("The table was read. Look at its columns and choose their roles."))


def _choose_roles(request: HttpRequest, challenge: Challenge, dataset: Dataset, form: ColumnsForm) -> None:
    roles = form.roles()
    if not form.must_read_again():
        actions.set_roles(challenge=challenge, roles=roles, by=request.user)
        messages.success(request, _("The roles were saved."))
        return
    with (
        dataset.source.open("rb") as file,
        staged_table(
            file,
            dataset.file_name,
            target=form.named("target")[0],
            patient=next(iter(form.named("patient")), ""),
            roles={name: role for name, role in roles.items() if role not in ("target", "patient")},
            task=form.reading(),
        ) as table,
    ):
        actions.set_data(challenge=challenge, table=table, by=request.user, read_again=True)
    if table.sample:
        messages.success(request, _("The table was read again, and a new sample was generated."))
    else:
        messages.warning(
            request, _("The table was read again, but no sample could be generated: upload one of your own.")
        )


def _change_sample(request: HttpRequest, challenge: Challenge, dataset: Dataset, form: SampleForm | None) -> None:
    if form is None:
        with generated_sample(dataset.table_path, dataset.schema) as sample:
            actions.set_sample(challenge=challenge, sample=sample, by=request.user)
    else:
        file = form.cleaned_data["file"]
        with own_sample(file, file.name, table=dataset.table_path, schema=dataset.schema) as sample:
            actions.set_sample(challenge=challenge, sample=sample, by=request.user)
    messages.success(request, _("The public sample was replaced."))


def _about(dataset: Dataset | None, forms: dict[str, Any]) -> dict[str, Any]:
    """The profile, a row per column with its choice of role, and the first records of the sample."""
    if dataset is None:
        return {}
    columns = [
        {
            "facts": facts,
            "column": column,
            "type": _TYPES[column.type],
            "share": 100 * facts["missing"] / dataset.rows,
            "role": forms["columns"][f"role-{number}"],
        }
        for number, (column, facts) in enumerate(zip(dataset.schema.columns, dataset.profile["columns"], strict=True))
    ]
    if not dataset.sample:
        return {"columns": columns}
    sample = tables.read(dataset.sample_path)
    head = sample.head(_SHOWN_ROWS).astype("object")
    return {
        "columns": columns,
        "sample_names": list(sample.columns),
        "sample_rows": head.where(head.notna(), "").to_numpy().tolist(),
    }
