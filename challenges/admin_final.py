"""Pages of the admin about the final: how far it is, freezing the picks, revealing the results."""

from functools import partial
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from challenges import actions, finals
from challenges.actions import Refused
from challenges.admin_pages import OrganiserPages, Page, address
from challenges.models import Challenge

_REFRESH_SECONDS = 15


class FinalPages(OrganiserPages):
    """The organisers' pages, with those of challenges that have a final."""

    def pages(self) -> dict[str, Page]:
        return {**super().pages(), "final": self.final_view, "freeze": self.freeze_view, "reveal": self.reveal_view}

    def steps(self, challenge: Challenge) -> list[dict[str, str]]:
        """The final has its place before the end."""
        *before, close = super().steps(challenge)
        if challenge.final is None or challenge.status == Challenge.Status.DRAFT:
            return [*before, close]
        step = {"name": _("Final"), "link": address("final", challenge), "state": _state(challenge)}
        return [*before, step, close]

    def final_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """How far the final is, with a picture of what is missing; and the button that repeats faults of ours."""
        challenge = self._challenge(request, object_id)
        final = challenge.final
        if final is None:
            raise Http404
        if request.method == "POST":
            try:
                number = actions.repeat_faults(challenge=challenge, by=request.user)
                said = ngettext("%(number)s run is repeated.", "%(number)s runs are repeated.", number)
                messages.success(request, said % {"number": number})
            except Refused as refused:
                messages.error(request, str(refused))
            return HttpResponseRedirect(address("final", challenge))
        progress = finals.conductor().progress(final) if final.is_frozen else finals.Progress()
        context = {
            "final": final,
            "development": challenge.development,
            "progress": progress,
            "seeds": range(1, final.seeds + 1),
            "cannot_freeze": finals.freeze_obstacle(challenge),
            "cannot_reveal": finals.reveal_obstacle(challenge),
            "refresh_seconds": _REFRESH_SECONDS if progress.open else None,
        }
        return self._page(request, challenge, "final", _("Final"), context)

    def freeze_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks for confirmation, then freezes the picks."""
        challenge = self._challenge(request, object_id)
        texts = {
            "obstacle": finals.freeze_obstacle(challenge),
            "question": _("Freeze the picks for the final of “%(title)s”?") % {"title": challenge.title},
            "consequence": _(
                "The development phase ends. What the teams have picked by now is in the final; a team that has picked "
                "nothing of a kind goes in with its best of that kind on the present board. This cannot be undone."
            ),
            "button": _("Freeze"),
        }
        done = _("The picks are frozen.")
        return self._confirmed(request, challenge, "freeze", _("Freeze the picks"), texts, actions.freeze, done)

    def reveal_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks for confirmation, then shows the results to everybody."""
        challenge = self._challenge(request, object_id)
        obstacle = finals.reveal_obstacle(challenge)
        spoilt = "" if obstacle else finals.spoilt(challenge)
        texts: dict[str, Any] = {
            "obstacle": obstacle,
            "warning": spoilt,
            "reason": _("Reason, which everybody reads above the boards and in the matrix") if spoilt else "",
            "longest": finals.LONGEST_NOTE,
            "question": _("Reveal the results of the final of “%(title)s”?") % {"title": challenge.title},
            "consequence": _(
                "Everybody sees the final standings, and which entries failed. The boards of the development phase "
                "stay readable. This cannot be undone."
            ),
            "button": _("Reveal"),
        }
        done = _("The results are revealed.")
        reveal = partial(actions.reveal, reason=request.POST.get("reason", ""))
        return self._confirmed(request, challenge, "reveal", _("Reveal the results"), texts, reveal, done)


def _state(challenge: Challenge) -> str:
    """Where the final stands, in a few words."""
    final = challenge.final
    if final is None or not final.is_frozen:
        return _("picks are open")
    return _("under way") if final.is_sealed else _("revealed")
