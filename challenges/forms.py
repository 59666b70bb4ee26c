"""What organisers fill in, in the admin."""

from typing import Any, ClassVar

from django import forms
from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from challenges import locks, walls
from challenges.models import Challenge, Phase
from challenges.scenarios import registry
from challenges.schema import Role, Schema
from challenges.uploads import SUFFIXES

ROLE_NAMES: dict[Role, Any] = {
    "feature": gettext_lazy("feature"),
    "quasi-identifier": gettext_lazy("quasi-identifier"),
    "secret": gettext_lazy("secret"),
    "target": gettext_lazy("target"),
    "patient": gettext_lazy("patient id"),
}
# `multiclass` reads any target as classes, also one of two.
TASK_CHOICES = [
    ("", gettext_lazy("recognise it")),
    ("multiclass", gettext_lazy("classes")),
    ("regression", gettext_lazy("a number")),
]


class ChallengeForm(forms.ModelForm[Challenge]):
    """A challenge, with its organisers by email address: a list of all people would show participants' addresses."""

    organiser_emails = forms.CharField(
        label=gettext_lazy("Organisers"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 40}),
        help_text=gettext_lazy(
            "Email addresses, one per line. Organisers edit the challenge, see exact scores and logs of private runs, "
            "and enter anchors. To reach these pages they must also be staff and in the group “Organisers”."
        ),
    )

    walls = forms.MultipleChoiceField(
        label=gettext_lazy("Demanded walls"),
        required=False,
        choices=walls.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text=gettext_lazy(
            "Images always run without a network, with a read-only root and without privileges. Runs of a challenge "
            "that demands more go only to hosts that offer it: the check says if there is none."
        ),
    )

    class Meta:
        model = Challenge
        fields = "__all__"  # noqa: DJ007 -- the admin lists them
        widgets = {
            "summary": forms.Textarea(attrs={"rows": 2, "cols": 80}),
            "summary_de": forms.Textarea(attrs={"rows": 2, "cols": 80}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            people = self.instance.organisers.order_by("email")
            self.fields["organiser_emails"].initial = "\n".join(person.email for person in people)
        if "options" in self.fields:  # once published they are shown, not chosen
            self.fields["options"].help_text = options_help()

    def clean_options(self) -> Any:
        return self.cleaned_data["options"] or {}

    def clean_organiser_emails(self) -> list[Any]:
        emails = {line.strip().lower() for line in self.cleaned_data["organiser_emails"].splitlines() if line.strip()}
        people = list(get_user_model()._default_manager.filter(email__in=emails))
        unknown = emails - {person.email.lower() for person in people}
        if unknown:
            raise forms.ValidationError(
                _("Nobody has signed up with the address %(email)s yet."), params={"email": min(unknown)}
            )
        if not people and self.instance.pk:
            raise forms.ValidationError(_("A challenge needs at least one organiser."))
        return people

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]  # sets the instance, which the rule looks at
        if self.instance.pk:
            stored = Challenge.objects.get(pk=self.instance.pk)
            if problem := locks.challenge_problem(stored, self.instance):
                self.add_error(None, problem)


def options_help() -> str:
    """What may be set for which scenario, in the reader's language."""
    lines = [
        f"{scenario.title}: “{option.name}” ({option.about})"
        for scenario in registry.SCENARIOS.values()
        for option in scenario.options
    ]
    return "\n".join([_("A JSON object; empty: the defaults."), *lines])


class PhaseForm(forms.ModelForm[Phase]):
    """A phase; its dates are read in the challenge's own time zone, which the admin activates."""

    class Meta:
        model = Phase
        fields = ("kind", "opens_at", "closes_at", "seeds", "folds")
        help_texts: ClassVar[dict[str, Any]] = {
            "opens_at": gettext_lazy("Empty: when the challenge is published; a final: when development is over."),
            "closes_at": gettext_lazy("Of the development phase: the moment that freezes the picks for the final."),
            "seeds": gettext_lazy("Times that each defense is trained. Empty: 1, in a final 3."),
            "folds": gettext_lazy("Parts of the candidates, to cross-fit. Empty: 2, in a final 1."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("seeds", "folds"):
            if name in self.fields:  # once published they are shown, not chosen
                self.fields[name].required = False
                if not self.instance.pk:
                    self.initial[name] = None  # what is usual depends on the kind

    def clean_seeds(self) -> int:
        return self._usual("seeds")

    def clean_folds(self) -> int:
        return self._usual("folds")

    def _usual(self, name: str) -> int:
        given: int | None = self.cleaned_data[name]
        return Phase.usual(self.cleaned_data.get("kind", self.instance.kind))[name] if given is None else given

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]  # sets the instance, which the rule looks at
        phase = self.instance
        if self.errors or not phase.challenge_id:
            return
        stored = Phase.objects.get(pk=phase.pk) if phase.pk else None
        if problem := locks.phase_problem(phase.challenge, stored, phase):
            self.add_error(None, problem)


class DataForm(forms.Form):
    """The private table: a file, and what it cannot say about itself."""

    file = forms.FileField(
        label=gettext_lazy("table"),
        widget=forms.FileInput(attrs={"accept": ",".join(SUFFIXES)}),
        help_text=gettext_lazy(
            "CSV (UTF-8, the first line names the columns) or Parquet. One row per patient is best."
        ),
    )
    target = forms.CharField(
        label=gettext_lazy("target column"),
        required=False,
        help_text=gettext_lazy("What models learn to predict. It can also be chosen after the upload."),
    )
    patient = forms.CharField(
        label=gettext_lazy("patient column"),
        required=False,
        help_text=gettext_lazy("If a patient may have several rows: the column that tells patients apart."),
    )
    task = forms.ChoiceField(label=gettext_lazy("the target is"), choices=TASK_CHOICES, required=False)


class ColumnsForm(forms.Form):
    """A role for each column of a table."""

    task = forms.ChoiceField(label=gettext_lazy("the target is"), choices=TASK_CHOICES, required=False)

    def __init__(self, schema: Schema, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schema = schema
        if schema.target:
            self.fields["task"].initial = "regression" if schema.task == "regression" else "multiclass"
        for number, column in enumerate(schema.columns):
            self.fields[f"role-{number}"] = forms.ChoiceField(
                label=_("Role of %(column)s") % {"column": column.name},
                choices=list(ROLE_NAMES.items()),
                initial=column.role,
            )

    def roles(self) -> dict[str, Role]:
        """The chosen role of every column."""
        return {column.name: self.cleaned_data[f"role-{number}"] for number, column in enumerate(self.schema.columns)}

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if not self.errors:
            if len(self.named("target")) != 1:
                raise forms.ValidationError(_("Exactly one column is the target: choose which."))
            if len(self.named("patient")) > 1:
                raise forms.ValidationError(_("Only one column can tell patients apart."))
        return cleaned

    def named(self, wanted: Role) -> list[str]:
        """The columns that were given this role."""
        return [name for name, role in self.roles().items() if role == wanted]

    def reading(self) -> str:
        """How to read the target: what was shown for one target says nothing about another."""
        stays = self.named("target") == [self.schema.target] or "task" in self.changed_data
        return str(self.cleaned_data["task"]) if stays else ""

    def must_read_again(self) -> bool:
        """Whether the choice changes what the table holds (target, patients), not only what columns are called."""
        task = self.reading()
        return bool(
            self.named("target") != [self.schema.target]
            or self.named("patient") != ([self.schema.patient_id] if self.schema.patient_id else [])
            or (task and (task == "regression") != (self.schema.task == "regression"))
        )


class SampleForm(forms.Form):
    """The organiser's own public sample."""

    file = forms.FileField(
        label=gettext_lazy("your own sample"),
        widget=forms.FileInput(attrs={"accept": ",".join(SUFFIXES)}),
        help_text=gettext_lazy("The same columns, made-up records: everybody can download it."),
    )
