"""What a challenge is about: overview, data, rules; and joining it."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from challenges.models import Dataset
from challenges.scenarios import registry
from submissions import actions
from submissions.forms import JoinForm
from submissions.views.common import Visit, visit


@require_safe
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    here = visit(request, slug)
    scenario = registry.get(here.challenge.scenario)
    context = here.context(tab="overview", scenario=scenario, phases=here.challenge.phases.all())
    return render(request, "challenges/overview.html", context)


@require_safe
def data(request: HttpRequest, slug: str) -> HttpResponse:
    """The columns as containers get them (no patient id), and the public sample."""
    here = visit(request, slug)
    dataset = _dataset(here)
    columns = dataset.schema.shared if dataset else ()
    return render(request, "challenges/data.html", here.context(tab="data", dataset=dataset, columns=columns))


@require_safe
def sample(request: HttpRequest, slug: str) -> HttpResponseBase:
    """The public sample: artificial records with the columns of the private table."""
    here = visit(request, slug)
    dataset = _dataset(here)
    if dataset is None or not dataset.sample:
        raise Http404
    name = f"{here.challenge.slug}-sample.parquet"
    return FileResponse(dataset.sample_path.open("rb"), as_attachment=True, filename=name)


@require_safe
def rules(request: HttpRequest, slug: str) -> HttpResponse:
    here = visit(request, slug)
    return render(request, "challenges/rules.html", here.context(tab="rules", form=JoinForm()))


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def join(request: HttpRequest, slug: str) -> HttpResponse:
    """The rules with the form that accepts them."""
    here = visit(request, slug)
    if here.team:
        return redirect("challenge_submissions", slug=slug)
    form = JoinForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            team = actions.join(challenge=here.challenge, user=request.user, team_name=form.cleaned_data["team"])
        except actions.Refused as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(
                request, _("Welcome, %(team)s. You can enter a defense or an attack now.") % {"team": team}
            )
            return redirect("submit", slug=slug)
    return render(request, "challenges/join.html", here.context(tab="rules", form=form))


def _dataset(here: Visit) -> Dataset | None:
    dataset: Any = getattr(here.challenge, "dataset", None)
    return dataset if isinstance(dataset, Dataset) else None
