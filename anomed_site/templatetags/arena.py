"""How numbers, states and texts are written on the pages."""

from datetime import datetime
from zoneinfo import ZoneInfo

from django import template
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext, gettext_lazy

from anomed_site import markdown as markdown_module
from challenges.models import Challenge
from challenges.scenarios import registry
from challenges.scenarios.words import Words
from submissions import boards, logs
from submissions.boards import Row

register = template.Library()

# Leaks from which the next darker cell of the matrix begins; 0.20 is the usual W_ref.
LEAK_LEVELS = (0.01, 0.03, 0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.60, 0.80)
_DASH = "–"
_TYPES = {
    "integer": gettext_lazy("whole number"),
    "number": gettext_lazy("number"),
    "category": gettext_lazy("category"),
}
_ROLES = {
    "feature": gettext_lazy("feature"),
    "quasi-identifier": gettext_lazy("quasi-identifier"),
    "secret": gettext_lazy("secret"),
    "target": gettext_lazy("target"),
}
_METRICS = {
    "auroc": gettext_lazy("AUROC, the area under the ROC curve"),
    "balanced_accuracy": gettext_lazy("balanced accuracy"),
    "log_loss": gettext_lazy("log loss"),
    "r2": gettext_lazy("R², the explained variance"),
    "mae": gettext_lazy("mean absolute error"),
}
_TERMS = {
    "U": (gettext_lazy("Utility"), gettext_lazy("How useful the release is, 0 to 1")),
    "W": (gettext_lazy("Worst leak"), gettext_lazy("What the best attack learns, 0 to 1. Small is good")),
    "P": (gettext_lazy("Privacy"), gettext_lazy("How little leaks, 0 to 1")),
    "S": (gettext_lazy("Score"), gettext_lazy("0 to 100: utility and privacy at once")),
    "L": (gettext_lazy("Mean leak"), gettext_lazy("What it learns from a defense on average, 0 to 1")),
    "N": (
        gettext_lazy("Novelty"),
        gettext_lazy("How much less would leak at worst, on average, without this attack"),
    ),
    "Q": (gettext_lazy("Score"), gettext_lazy("0 to 100: what it takes from useful defenses")),
}


@register.filter
def markdown(text: str) -> SafeString:
    """Organisers' Markdown as clean HTML."""
    return markdown_module.render(text)


@register.filter
def text(challenge: Challenge, field: str) -> str:
    """A text of the challenge in the reader's language."""
    return challenge.text(field)


@register.filter
def number(value: float | str | None, decimals: int = 2) -> str:
    """A number with fixed decimals in the reader's notation; a dash while there is none."""
    if value is None or isinstance(value, str):  # a missing row is "" to a template
        return _DASH
    return number_format(round(value, decimals) + 0.0, decimals).replace("-", "−")  # + 0.0: never "-0.00"


@register.filter
def grouped(value: int) -> str:
    """A large whole number with its thousands set apart."""
    return number_format(value, 0, force_grouping=True)


@register.filter
def level(leak: float | None) -> int:
    """The shade of a leak, 0 to 10."""
    return 0 if leak is None else sum(leak >= bound for bound in LEAK_LEVELS)


@register.filter
def words(challenge: Challenge) -> Words:
    """What its attacks are after, in the words of its game."""
    return registry.get(challenge.scenario).words


@register.filter
def ranked_by(challenge: Challenge) -> str:
    """How the defenses are ranked, in one sentence."""
    return boards.ranked_by(challenge)


@register.filter
def part(done: float, total: float) -> int:
    """Percent that `done` is of `total`."""
    return round(100 * done / total) if total else 0


@register.filter
def moment(value: datetime | None, challenge: Challenge | None = None) -> str:
    """A date with time, of a challenge in its own time zone."""
    if value is None:
        return _DASH
    zone = ZoneInfo(challenge.time_zone) if challenge else None
    return date_format(localtime(value, zone), gettext("j M Y, H:i"))


@register.filter
def day(value: datetime, challenge: Challenge) -> str:
    """The day alone, in the challenge's time zone."""
    return date_format(localtime(value, ZoneInfo(challenge.time_zone)), gettext("j M Y"))


@register.filter
def plain(value: float | None) -> str:
    """A bound of a column without needless decimals."""
    return _DASH if value is None else f"{value:.12g}"


@register.filter
def type_name(name: str) -> str:
    return str(_TYPES.get(name, name))


@register.filter
def role_name(name: str) -> str:
    return str(_ROLES.get(name, name))


@register.filter
def metric_name(name: str) -> str:
    return str(_METRICS.get(name, name))


@register.filter
def printable(value: str) -> str:
    """Text of unknown origin without control characters."""
    return logs.readable(value.encode(errors="replace"))


@register.simple_tag
def scale_head(end: int) -> SafeString:
    """The head of the column of dots with bars."""
    return format_html(
        '<button type="button" class="term" data-bs-toggle="tooltip" data-bs-title="{}">{}</button>',
        gettext("The score as a dot, and the range that it would lie in with other patients, 95 times of 100"),
        gettext("0 to %(end)s") % {"end": end},
    )


@register.simple_tag
def term(letter: str) -> SafeString:
    """A column's name with what it means on hover and focus; the page's legend says it at length."""
    name, meaning = _TERMS[letter]
    return format_html(
        '<button type="button" class="term" data-bs-toggle="tooltip" data-bs-title="{}">{}</button>', meaning, name
    )


@register.filter
def describe_picture(defenses: list[Row]) -> str:
    """The picture of utility against privacy in words."""
    dots = [row for row in defenses if row.utility is not None and row.privacy is not None]
    if not dots:
        return gettext("The first dot appears when a defense has met an attack.")
    return " ".join(
        gettext("%(name)s: utility %(u)s, privacy %(p)s.")
        % {"name": row.name, "u": number(row.utility), "p": number(row.privacy)}
        for row in dots
    )


@register.simple_tag
def shades() -> list[str]:
    """Where each shade of the matrix begins."""
    return ["0", *(number(bound) for bound in LEAK_LEVELS)]


# The picture of a score: its width in units of the drawing, and a margin that keeps the dot inside.
_WIDE, _HIGH, _MARGIN = 112, 16, 6


# Where the scale of scores may end: attacks take a few of a hundred points.
_SCALES = (10, 20, 50, 100)


@register.filter
def scale_end(rows: list[Row]) -> int:
    """Where the scale of a board's pictures ends: the first of a few round numbers that holds all scores."""
    highest = max([row.intervals.get("score", (0.0, row.score))[1] for row in rows if row.score is not None], default=0)
    return next(end for end in _SCALES if highest <= end or end == _SCALES[-1])


@register.simple_tag
def dot_and_bar(row: Row, end: int = 100) -> SafeString:
    """The score from 0 to `end` as a dot, with its 95 % interval as a bar; in words for those who do not see it."""
    if row.score is None:
        return SafeString("")
    low, high = row.intervals.get("score", (row.score, row.score))
    described = (
        gettext("Score %(score)s, with other patients between %(low)s and %(high)s")
        if "score" in row.intervals
        else gettext("Score %(score)s, its interval is being worked out")
    ) % {"score": number(row.score, 1), "low": number(low, 0), "high": number(high, 0)}
    middle = _HIGH // 2
    return format_html(
        '<svg class="dots" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" role="img" aria-label="{label}">'
        '<title>{label}</title><path class="axis" d="M{left} {middle}H{right}"/>'
        '<path class="bar" d="M{x1} {middle}H{x2}"/><circle cx="{x}" cy="{middle}" r="4"/></svg>',
        wide=_WIDE,
        high=_HIGH,
        label=described,
        left=_MARGIN,
        right=_WIDE - _MARGIN,
        middle=middle,
        x1=_along(low, end),
        x2=_along(high, end),
        x=_along(row.score, end),
    )


def _along(score: float, end: int) -> str:
    return f"{_MARGIN + (_WIDE - 2 * _MARGIN) * min(max(score, 0), end) / end:.1f}"


@register.simple_tag
def span(interval: tuple[float, float] | None) -> SafeString:
    """A 95 % interval in small figures below its number; nothing while there is none."""
    if not interval:
        return SafeString("")
    low, high = (number(end) for end in interval)
    return format_html(
        '<span class="interval"><span class="visually-hidden">{}</span><span aria-hidden="true">{}–{}</span></span>',
        gettext("95 %% interval: %(low)s to %(high)s") % {"low": low, "high": high},
        low,
        high,
    )
