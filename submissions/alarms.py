"""What an operator has to look at among the entries: challenges whose images and uploads outgrow their share."""

from collections import defaultdict
from collections.abc import Iterator

from django.conf import settings
from django.db.models import Sum
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sandbox.alarms import Condition
from submissions.models import Submission, Upload

KINDS = {"storage": gettext_lazy("Much storage used")}


def conditions() -> Iterator[Condition]:
    """Challenges that hold more than the settings find normal. A team that uses up its quota is no alarm."""
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
