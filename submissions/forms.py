"""What participants fill in."""

from collections.abc import Collection
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from sandbox.contracts import Contract
from submissions.models import Submission


class JoinForm(forms.Form):
    """Joining a challenge as a team of one."""

    team = forms.CharField(
        label=_("Team name"),
        max_length=60,
        help_text=_("Everybody sees it on the boards. Your own name and address are shown to nobody."),
    )
    accept_rules = forms.BooleanField(label=_("I have read the rules and accept them."))


class SubmitForm(forms.Form):
    """Entering an image. With JavaScript the file goes piece by piece through the API, else with this form."""

    kind = forms.ChoiceField(
        label=_("What do you enter?"),
        choices=[
            (Submission.Kind.DEFENSE, _("A defense: it releases something useful and protects the patients")),
            (Submission.Kind.ATTACK, _("An attack: it tries to learn about patients from what defenses release")),
        ],
        initial=Submission.Kind.DEFENSE,
        widget=forms.RadioSelect,
    )
    file = forms.FileField(
        label=_("Image archive"),
        help_text=_(
            "The file that “docker save IMAGE -o image.tar” writes, plain or gzip-compressed, for linux/amd64."
        ),
        widget=forms.FileInput(attrs={"accept": ".tar,.tar.gz,.tgz,application/x-tar,application/gzip"}),
    )
    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        required=False,
        help_text=_("Shown on the boards. Without one the name of the file is taken."),
    )
    note = forms.CharField(
        label=_("Note"),
        max_length=200,
        required=False,
        help_text=_("For your team and the organisers: what is new in this version?"),
    )

    contract = forms.ChoiceField(
        label=_("How does the image talk?"),
        choices=[("", _("as its label says, or else by files")), *Contract.choices],
        required=False,
        help_text=_("An image built with the AnoMed packages is a web server. Most images read and write files."),
    )
    declared_epsilon = forms.FloatField(
        label=_("Declared epsilon"),
        required=False,
        min_value=0,
        widget=forms.NumberInput(attrs={"step": "any"}),
        help_text=_("Of a defense with differential privacy. Its risk card shows it as declared, not verified."),
    )
    declared_delta = forms.FloatField(
        label=_("Declared delta"),
        required=False,
        min_value=0,
        max_value=1,
        widget=forms.NumberInput(attrs={"step": "any"}),
    )

    def __init__(
        self, *args: Any, can_enter: bool, is_organiser: bool, contracts: Collection[str], **kwargs: Any
    ) -> None:
        """Organisers may also enter anchors and baselines; without a team of their own, only those.

        Nobody is asked for the contract where only one of `contracts` can be played.
        """
        super().__init__(*args, **kwargs)
        if len(contracts) < 2:
            del self.fields["contract"]
        if is_organiser:
            roles = [choice for choice in Submission.Role.choices if can_enter or choice[0] != Submission.Role.ENTRY]
            self.fields["role"] = forms.ChoiceField(
                label=_("Role"),
                choices=roles,
                help_text=_("Anchors (defenses) and baselines (attacks) are in every matrix and never ranked."),
            )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        cleaned.setdefault("role", Submission.Role.ENTRY)
        cleaned.setdefault("contract", "")
        return cleaned
