"""How a risk card draws and words its numbers, for readers who know no statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import template
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from anomed_site.templatetags.arena import number
from challenges.scenarios import registry
from submissions.evidence import Card, Estimate, Finding, Histogram

register = template.Library()

# Where words change. A leak of 0.05 is a right answer in 52 or 53 of 100 tries; from W_ref on privacy counts as none.
GOOD_UTILITY: Final = 0.8
SMALL_LEAK: Final = 0.05
FEW_PEOPLE: Final = 0.05

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
    word: str

    @property
    def sign(self) -> str:
        return {"good": "●", "middle": "▲", "bad": "■"}[self.level]


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
    assert card.worst_leak is not None
    if card.worst_leak.value >= (card.method.constants["reference_leak"] or 1):
        return Verdict("bad", _("large leak"))
    if card.worst_leak.value >= SMALL_LEAK and card.worst_leak.low == 0:
        return Verdict("middle", _("perhaps a leak"))
    if card.worst_leak.value >= SMALL_LEAK:
        return Verdict("middle", _("noticeable leak"))
    return Verdict("good", _("small leak"))


@register.filter
def standing_out(exposure: Histogram) -> Verdict:
    """How many people stand out, in a word."""
    if exposure.share.value <= exposure.noise:
        return Verdict("good", _("no more than chance"))
    return (
        Verdict("middle", _("a few people")) if exposure.share.value < FEW_PEOPLE else Verdict("bad", _("many people"))
    )


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
