"""What an operator has to look at among the entries: much storage used, and attacks that know too much."""

from collections import defaultdict
from collections.abc import Iterator

from django.conf import settings
from django.db.models import Sum
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from challenges.models import Challenge, Phase
from sandbox.alarms import Condition
from submissions import blindness
from submissions.models import Submission, Upload

KINDS = {
    "storage": gettext_lazy("Much storage used"),
    "blind_control": gettext_lazy("An attack knows more than releases tell"),
}


def conditions() -> Iterator[Condition]:
    """What only a person can decide about. A team that uses up its quota is no alarm."""
    yield from _storage()
    yield from _controls()


def _controls() -> Iterator[Condition]:
    """Attacks of open challenges that are not at chance in their blind control, until an organiser takes them out."""
    text = _(
        "In the challenge %(challenge)s an attack knows more of people than the release that it saw can tell. Its "
        "organisers find it on the page Oversight."
    )
    for phase in Phase.objects.filter(challenge__status=Challenge.Status.PUBLISHED).select_related("challenge"):
        for attack, _outcome in blindness.flagged(phase):
            slug = phase.challenge.slug
            yield Condition("blind_control", f"{slug} {phase.kind} {attack.pk}", text % {"challenge": slug})


def _storage() -> Iterator[Condition]:
    """Challenges that hold more than the settings find normal."""
    most: int = settings.ALARM_CHALLENGE_GB
    for slug, size in used().items() if most else ():
        if size > most * 10**9:
            text = _("Images and uploads of the challenge %(challenge)s have %(size)s GB, more than %(most)s GB.")
            yield Condition("storage", slug, text % {"challenge": slug, "size": round(size / 10**9), "most": most})


def used() -> dict[str, int]:
    """Bytes that each challenge's uploads and images have, by its short name; a shared image counts for each."""
    sizes: dict[str, int] = defaultdict(int)
    uploads = Upload.objects.order_by().values_list("submission__challenge__slug")
    for slug, arrived in uploads.annotate(Sum("offset")):
        sizes[slug] += arrived
    held = Submission.objects.filter(image__isnull=False, image__removed_at=None).order_by()
    for slug, _image, size in held.values_list("challenge__slug", "image", "image__size").distinct():
        sizes[slug] += size
    return dict(sizes)
