"""How a risk card draws and words its numbers, for readers who know no statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import template
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from anomed_site.templatetags.arena import number
from challenges.metrics.rounding import DECIMALS, public
from challenges.scenarios import registry
from submissions.evidence import Card, Estimate, Finding, Histogram

register = template.Library()

# Where words change. A leak of 0.05 is a right answer in 52 or 53 of 100 tries; from W_ref on privacy counts as none.
GOOD_UTILITY: Final = 0.8
SMALL_LEAK: Final = 0.05
FEW_PEOPLE: Final = 0.05
LAST_DIGIT: Final = 10.0**-DECIMALS

# Units of the pictures' own coordinates.
_WIDTH: Final = 600.0
_EDGE: Final = 10.0
_BARS: Final = 150.0
_PEOPLE_IN_ROW: Final = 25

_CRITERIA: Final = {
    "singling_out": (
        gettext_lazy("Singling out"),
        gettext_lazy("Can one person be picked out of the data?"),
    ),
    "linkability": (
        gettext_lazy("Linking"),
        gettext_lazy("Can records of one person be found to belong together?"),
    ),
    "inference": (
        gettext_lazy("Inference"),
        gettext_lazy("Can something unknown about a person be learned?"),
    ),
}
_EXTENTS: Final = {
    "measured": ("good", gettext_lazy("measured")),
    "partly": ("middle", gettext_lazy("measured in part")),
    "not_measured": ("bad", gettext_lazy("not measured")),
}


@dataclass(frozen=True)
class Verdict:
    """A word beside a number. `level` is good, middle or bad and shows as a sign of its own shape, not by colour."""

    level: str
    word: Any  # in the reader's language

    @property
    def sign(self) -> str:
        return {"good": "●", "middle": "▲", "bad": "■"}[self.level]


_WORDS: Final = {
    ("leak", "clear"): Verdict("good", gettext_lazy("small leak")),
    ("leak", "open"): Verdict("middle", gettext_lazy("cannot be told")),
    ("leak", "beside"): Verdict("middle", gettext_lazy("small on average")),
    ("leak", "perhaps"): Verdict("middle", gettext_lazy("perhaps a leak")),
    ("leak", "some"): Verdict("middle", gettext_lazy("noticeable leak")),
    ("leak", "much"): Verdict("bad", gettext_lazy("large leak")),
    ("people", "clear"): Verdict("good", gettext_lazy("no more than chance")),
    ("people", "open"): Verdict("middle", gettext_lazy("cannot be told")),
    ("people", "beside"): Verdict("middle", gettext_lazy("nobody in particular")),
    ("people", "some"): Verdict("middle", gettext_lazy("a few people")),
    ("people", "much"): Verdict("bad", gettext_lazy("many people")),
}


@register.filter
def hundred(share: float) -> str:
    """Of 100, as a whole number in the reader's notation."""
    return number_format(round(100 * share) + 0, 0).replace("-", "−")


@register.filter
def shown_share(share: float) -> str:
    """Of 100, and never fewer than none: below 0 it is by chance alone."""
    return hundred(max(share, 0.0))


@register.filter
def decimal(value: float) -> str:
    """A small number written out, in the reader's notation: 0.00001."""
    digits = f"{value:.12f}".rstrip("0").partition(".")[2]
    return number_format(value, len(digits))


@register.simple_tag
def between(estimate: Estimate, per: int = 1, decimals: int = 2, least: float = -1.0) -> str:
    """The 95 % interval in brackets, with a space before; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    low, high = (number(per * max(bound, least), decimals) for bound in (estimate.low, estimate.high))
    return " " + _("(%(low)s to %(high)s)") % {"low": low, "high": high}


@register.filter
def useful(card: Card) -> Verdict:
    """How much of the usefulness is kept, in a word."""
    assert card.utility is not None
    if card.utility.value < (card.method.constants["utility_threshold"] or 0):
        return Verdict("bad", _("little use"))
    if card.utility.value < GOOD_UTILITY:
        return Verdict("middle", _("usable"))
    return Verdict("good", _("very useful"))


@register.filter
def leaking(card: Card) -> Verdict:
    """How bad the worst leak is, in a word."""
    return _WORDS["leak", _level(_leak(card), beside=_people(card))]


@register.filter
def standing_out(card: Card) -> Verdict:
    """How many people stand out, in a word."""
    return _WORDS["people", _level(_people(card), beside=_leak(card))]


@dataclass(frozen=True)
class Measured:
    """What a verdict is read from. Up to `small` a number may be chance or does not matter; from `large` on it is bad.

    `shown`: whether something was found at all, more than chance explains.
    """

    value: float
    high: float
    small: float
    large: float
    shown: bool


def _leak(card: Card) -> Measured | None:
    leak, large = card.worst_leak, card.method.constants["reference_leak"] or 1.0
    if leak is None:
        return None
    found = leak.value >= SMALL_LEAK and leak.low != 0
    return Measured(leak.value, _top(leak), SMALL_LEAK, large, found or leak.value >= large)


def _people(card: Card) -> Measured | None:
    if card.exposure is None:
        return None
    share, noise = card.exposure.share, card.exposure.noise
    beyond = public(noise + LAST_DIGIT)  # the noise itself is still chance
    return Measured(share.value, _top(share), beyond, max(beyond, FEW_PEOPLE), share.value >= beyond)


def _top(estimate: Estimate) -> float:
    return estimate.value if estimate.high is None else estimate.high


def _level(measured: Measured | None, *, beside: Measured | None) -> str:
    """The one rule for both numbers: where the number itself lies, and whether there can be an all-clear.

    No all-clear where the interval reaches what would be bad: few people or tied scores prove nothing. Nor where the
    other number did find something: a leak may be spread over all people, or be that of a few, and is one all the same.
    """
    assert measured is not None
    if measured.value >= measured.large:
        return "much"
    if measured.value >= measured.small:
        return "some" if measured.shown else "perhaps"
    if beside is not None and beside.shown:
        return "beside"
    return "open" if measured.high >= measured.large else "clear"


@register.filter
def extent(name: str) -> Verdict:
    """How far a criterion was measured."""
    level, word = _EXTENTS[name]
    return Verdict(level, str(word))


@register.filter
def criterion_name(name: str) -> str:
    return str(_CRITERIA[name][0])


@register.filter
def criterion_question(name: str) -> str:
    return str(_CRITERIA[name][1])


@register.filter
def sentence(finding: Finding, scenario: str) -> str:
    """One leak of the strongest attack, so that it can be read aloud."""
    words = {
        "rate": hundred(finding.rate.value),
        "span": between(finding.rate, 100, 0),
        "chance": hundred(finding.chance),
        "metric": finding.metric,
    }
    return str(registry.get(scenario).reading(finding.metric)) % words


@register.inclusion_tag("cards/_scale.html")
def scale(estimate: Estimate, colour: str, label: str, mark: float | None = None, chance: float | None = None) -> Any:
    """A dot with the bar of its interval on a line from 0 to 1; `mark` and `chance` are strokes across the line."""

    def place(value: float | None) -> str | None:
        return None if value is None else _place(_EDGE + min(max(value, 0.0), 1.0) * (_WIDTH - 2 * _EDGE))

    dot = place(estimate.value)
    return {
        "dot": dot,
        "low": place(estimate.low) or dot,
        "high": place(estimate.high) or dot,
        "mark": place(mark),
        "chance": place(chance),
        "colour": colour,
        "label": label,
    }


@register.inclusion_tag("cards/_people.html")
def people(share: float, label: str) -> Mapping[str, Any]:
    """A hundred people, of whom so many stand out."""
    number_out = round(100 * min(max(share, 0.0), 1.0))
    step = _WIDTH / _PEOPLE_IN_ROW
    return {
        "label": label,
        "height": _place(100 / _PEOPLE_IN_ROW * step * 1.35),
        "people": [
            {
                "x": _place((place % _PEOPLE_IN_ROW + 0.5) * step),
                "y": _place((place // _PEOPLE_IN_ROW) * step * 1.35),
                "out": place < number_out,
            }
            for place in range(100)
        ],
    }


@register.inclusion_tag("cards/_histogram.html")
def histogram(exposure: Histogram, label: str) -> Mapping[str, Any]:
    """Bars for the people in the data, an outline for the others, and the threshold that few of those exceed."""
    highest = max(*exposure.members, *exposure.others)
    width = (_WIDTH - 2 * _EDGE) / len(exposure.members)

    def top(share: float) -> float:
        return _BARS - share / highest * (_BARS - 10)

    bars = [
        {"x": _place(_EDGE + place * width + 1.5), "y": _place(top(share)), "height": _place(_BARS - top(share))}
        for place, share in enumerate(exposure.members)
    ]
    outline = [f"{_place(_EDGE)},{_place(_BARS)}"]
    for place, share in enumerate(exposure.others):
        outline += [f"{_place(_EDGE + at * width)},{_place(top(share))}" for at in (place, place + 1)]
    outline.append(f"{_place(_WIDTH - _EDGE)},{_place(_BARS)}")
    return {
        "label": label,
        "bars": bars,
        "width": _place(width - 3),
        "outline": " ".join(outline),
        "threshold": _place(_EDGE + exposure.threshold * (_WIDTH - 2 * _EDGE)),
    }


def _place(value: float) -> str:
    """A coordinate: with a point in every language."""
    return f"{value:.1f}"
