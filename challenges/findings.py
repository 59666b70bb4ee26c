"""What the check before publishing can find, and how it says so to a doctor.

A finding is stored as a code and its numbers, never as a sentence: every reader gets it in their own language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from django.utils.formats import number_format
from django.utils.translation import gettext_lazy as _

Level = Literal["ok", "info", "warning", "error"]
# Words in the facts that are codes elsewhere and words here.
_WORDS: Final[dict[str, dict[str, Any]]] = {
    "phase": {"development": _("development"), "final": _("final")},
    "part": {"training": _("training"), "test": _("test"), "auxiliary": _("auxiliary")},
    "needs": {
        "classes": _("a target of classes"),
        "number": _("a target that is a number"),
    },
}
LEVELS: Final[dict[str, Any]] = {"ok": _("fine"), "info": _("note"), "warning": _("warning"), "error": _("error")}

# code: (title, sentence)
SENTENCES: Final[dict[str, tuple[Any, Any]]] = {
    "data": (
        _("Data"),
        _("The private table holds %(rows)s records with %(columns)s columns. The target is “%(target)s”."),
    ),
    "data-missing": (_("Data"), _("There is no private table yet. Upload one on the page “Data”.")),
    "target-missing": (_("Data"), _("No target is chosen yet. Choose one on the page “Data”.")),
    "duplicates": (
        _("Repeated records"),
        _(
            "%(number)s repeated records were removed on upload, so that none is both in and out of training. "
            "If you did not expect repetitions, look at the file once more."
        ),
    ),
    "no-duplicates": (_("Repeated records"), _("No record occurs twice.")),
    "patient-column-missing": (
        _("Patients"),
        _(
            "No patient column is chosen: each row is taken as a different person. If a person has several rows, "
            "choose the column that tells patients apart on the page “Data”; the check cannot see this by itself."
        ),
    ),
    "metric": (
        _("Utility metric"),
        _(
            "The metric “%(metric)s” does not fit the target: it needs %(needs)s. "
            "Choose another metric, or read the target in another way."
        ),
    ),
    "classes": (_("Classes"), _("Every part holds every class; the rarest has %(fewest)s records in the test part.")),
    "classes-rare": (
        _("Classes"),
        _(
            "The class “%(label)s” has only %(number)s records in the part “%(part)s”. The utility of a model will "
            "depend on chance. Join rare classes, or use a bigger table."
        ),
    ),
    "classes-absent": (
        _("Classes"),
        _(
            "The class “%(label)s” does not occur in the part “%(part)s”: a model could not be trained or measured. "
            "Join rare classes, or use a bigger table."
        ),
    ),
    "target-varies": (_("Target"), _("The target is a number and differs from record to record in every part.")),
    "target-constant": (_("Target"), _("The target has the same value everywhere in the part “%(part)s”.")),
    "size": (
        _("Number of records"),
        _(
            "Phase “%(phase)s” scores attacks on %(total)s candidates (%(scored)s for each seed, seeds: %(seeds)s). "
            "A leak is measured with a standard error of about %(error)s."
        ),
    ),
    "size-small": (
        _("Too few records for firm conclusions"),
        _(
            "Phase “%(phase)s” scores attacks on %(total)s candidates (%(scored)s for each seed, seeds: %(seeds)s); "
            "at least %(least)s are advised. A leak will be measured with a standard error of about %(error)s (with "
            "%(advised)s it would be %(advised_error)s): a harmless defense may seem to leak up to ±%(twice)s by "
            "chance, and entries that differ by less cannot be told apart. You may publish all the same. More "
            "records, or more seeds, would help."
        ),
    ),
    "parts": (_("Parts"), _("The table cannot be dealt in phase “%(phase)s”: %(problem)s")),
    "disjoint": (
        _("Separate parts"),
        _(
            "No record and no patient is in two parts: %(aux)s auxiliary, %(core)s core, %(candidates)s candidates, "
            "%(test)s test records."
        ),
    ),
    "disjoint-records": (
        _("Separate parts"),
        _(
            "No record is in two parts: %(aux)s auxiliary, %(core)s core, %(candidates)s candidates, %(test)s test "
            "records."
        ),
    ),
    "not-disjoint": (
        _("Separate parts"),
        _("%(number)s records are in more than one part of phase “%(phase)s”. Nothing can be measured this way."),
    ),
    "blind": (
        _("Blind control"),
        _(
            "Who is in training cannot be guessed from the records alone: a classifier that sees no release reaches "
            "an AUC of %(auc)s, %(z)s standard errors from chance."
        ),
    ),
    "blind-odd": (
        _("Blind control"),
        _(
            "A classifier that sees no release guesses who is in training with an AUC of %(auc)s, %(z)s standard "
            "errors from chance. That happens by chance about once in 400 checks, and says nothing against the table. "
            "If you see it in several challenges, tell the operator of the platform."
        ),
    ),
    "blind-broken": (
        _("Blind control"),
        _(
            "A classifier that sees no release guesses who is in training with an AUC of %(auc)s, %(z)s standard "
            "errors from chance. The deal does not draw membership independently of the records, so that attacks "
            "would score without any leak. That is a fault of the platform: tell its operator."
        ),
    ),
    "subsample": (
        _("Large table"),
        _(
            "The models of the check (blind control, anchors) were fitted on %(number)s of the %(rows)s records, drawn "
            "at random. Everything else was looked at in all records."
        ),
    ),
    "too-wide": (
        _("Large table"),
        _("The check cannot fit its models: %(problem)s Leave columns out, or join categories."),
    ),
    "blind-failed": (_("Blind control"), _("The blind control cannot be made: %(problem)s")),
    "folds-small": (
        _("Parts"),
        _(
            "In phase “%(phase)s” a fold has only %(number)s scored candidates, or fewer than two members or "
            "non-members among them. At least %(least)s are needed, because every entry is dealt anew. Use a bigger "
            "table, more candidates, fewer folds, or a smaller revealed share."
        ),
    ),
    "anchors": (
        _("Anchors"),
        _(
            "A release that ignores the data has a utility of %(u0)s (u0); the best one without protection reaches "
            "%(u1)s (u1)."
        ),
    ),
    "anchors-close": (
        _("Anchors"),
        _(
            "The best release without protection (u1 = %(u1)s) is only a little better than one that ignores the data "
            "(u0 = %(u0)s). Utility will be a noisy number."
        ),
    ),
    "anchors-equal": (
        _("Anchors"),
        _(
            "The best release without protection (u1 = %(u1)s) is not better than one that ignores the data "
            "(u0 = %(u0)s): the target cannot be predicted from these columns, and a defense has nothing to keep "
            "useful."
        ),
    ),
    "anchors-failed": (_("Anchors"), _("The anchors cannot be computed: %(problem)s")),
    "sample": (
        _("Public sample"),
        _("The public sample of %(rows)s records has the columns of the private table and none of its records."),
    ),
    "sample-missing": (_("Public sample"), _("There is no public sample yet. Make one on the page “Data”.")),
    "sample-schema": (
        _("Public sample"),
        _("The public sample does not fit the columns of the private table: %(problem)s Make a new one."),
    ),
    "sample-real": (
        _("Public sample"),
        _(
            "%(number)s records of the public sample are records of the private table. The sample is public: "
            "use made-up records, or let the platform generate them."
        ),
    ),
    "sample-small": (
        _("Public sample"),
        _("The public sample has only %(rows)s records; at least %(least)s are needed to rehearse an entry."),
    ),
    "sample-parts": (
        _("Public sample"),
        _("Entries cannot be rehearsed on the public sample: %(problem)s"),
    ),
    "sample-classes-absent": (
        _("Public sample"),
        _(
            "Entries cannot be rehearsed on the public sample: when it is dealt, the part “%(part)s” has no record of "
            "the class “%(label)s”. Generate another sample, or upload one with more records of each class."
        ),
    ),
    "sample-target-constant": (
        _("Public sample"),
        _(
            "Entries cannot be rehearsed on the public sample: when it is dealt, the target has the same value "
            "everywhere in the part “%(part)s”. Upload a sample in which it varies."
        ),
    ),
    "sample-folds": (
        _("Public sample"),
        _(
            "Entries cannot be rehearsed on the public sample: when it is dealt, a fold has fewer than two members or "
            "non-members. Make a bigger sample, or reveal fewer candidates."
        ),
    ),
    "phases": (_("Phases"), _("The calendar is in order.")),
    "phases-none": (_("Phases"), _("There is no development phase. Add one to the challenge.")),
    "phase-unplayed": (  # found no more, but reports of older versions name it
        _("Phases"),
        _("A phase of the kind “%(phase)s” cannot be played yet. Remove it; a development phase is enough."),
    ),
    "final-by-hand": (
        _("Final"),
        _(
            "The development phase has no end: the final begins when you freeze the teams' picks yourself, "
            "on the page “Final”."
        ),
    ),
    "final-by-date": (
        _("Final"),
        _("Teams' picks are frozen at the end of the development phase; then each defense runs %(seeds)s times."),
    ),
    "phase-over": (_("Phases"), _("Phase “%(phase)s” would be over already. Choose a later date.")),
    "phase-backwards": (_("Phases"), _("Phase “%(phase)s” would close before it opens.")),
    "phases-overlap": (
        _("Phases"),
        _("The final phase begins before the development phase is over. Let the one close before the other opens."),
    ),
    "phase-units": (
        _("Phases"),
        _(
            "Phase “%(phase)s” has one seed and one fold. The worst leak is found on one part of the candidates and "
            "measured on another: choose at least two seeds or two folds."
        ),
    ),
    "limits": (
        _("Resources"),
        _("A container may use: time %(seconds)s s, memory %(memory_mb)s MB, processors %(cpus)s, GPUs %(gpus)s."),
    ),
    "limits-long": (
        _("Resources"),
        _(
            "A step may take %(hours)s hours. Every attack meets every defense: with ten of each, that may be "
            "%(total)s hours of computing."
        ),
    ),
    "limits-memory": (
        _("Resources"),
        _("%(memory_mb)s MB of memory are little: importing the usual libraries takes about %(least)s MB."),
    ),
    "walls-absent": (
        _("Resources"),
        _(
            "No host of this installation offers the demanded walls (%(walls)s) now. Images would wait until the "
            "operator adds one that does."
        ),
    ),
    "limits-beyond": (_("Resources"), _("A step may take at most %(hours)s hours.")),
    "constants": (_("Constants"), _("The reference leak must be greater than 0 and the revealed share less than 1.")),
    "ranking": (
        _("Ranking"),
        _(
            "Defenses cannot be ranked by “%(ranking)s” here: this scenario does not tell members from non-members. "
            "Choose another ranking."
        ),
    ),
    "secret-name": (
        _("Known and secret columns"),
        _(
            "The secret column “%(column)s” is called like a measure: boards, risk cards and exports could not tell "
            "the two apart. Give the column another name in the file and upload it again."
        ),
    ),
    "rules-missing": (_("Texts"), _("There are no rules. Participants accept them when they join.")),
    "overview-missing": (_("Texts"), _("There is no overview. It is the first page that participants read.")),
    "german-missing": (
        _("Texts"),
        _("Some texts have no German version: readers of the German site see them in English."),
    ),
    "texts": (_("Texts"), _("All texts are there, in both languages.")),
    "changed": (_("Check"), _("Data or settings were changed while the check ran. Run it again.")),
    "fault": (
        _("Check"),
        _("The check itself broke down. That is the platform's fault: its operator finds the cause in the log."),
    ),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `facts` fill the sentence: numbers, or texts in no need of translation."""

    level: Level
    code: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return str(SENTENCES[self.code][0])

    @property
    def text(self) -> str:
        return str(SENTENCES[self.code][1]) % {key: _said(key, value) for key, value in self.facts.items()}

    @property
    def level_name(self) -> str:
        return str(LEVELS[self.level])

    def to_json(self) -> dict[str, Any]:
        """Plain data, to be stored."""
        return {"level": self.level, "code": self.code, "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Finding:
        """The finding again, from what `to_json` gave."""
        return cls(facts["level"], facts["code"], facts["facts"])


def _said(key: str, value: Any) -> str:
    """A number in the reader's notation, three digits behind the point at most; a code as its word; a text as it is."""
    if isinstance(value, float):
        return number_format(float(f"{value:.3f}"))
    if isinstance(value, int):
        return number_format(value, force_grouping=True)
    return str(_WORDS.get(key, {}).get(value, value))
