"""What enters, in numbers for Prometheus. Nothing tells one team or challenge from another."""

from collections.abc import Iterator

from django.db.models import Count, Sum
from prometheus_client.core import GaugeMetricFamily, Metric

from submissions.models import Duel, Submission, Upload
from submissions.states import UNDER_WAY, State


class SubmissionsCollector:
    """Uploads and entries on their way."""

    def collect(self) -> Iterator[Metric]:
        uploads = Upload.objects.filter(submission__state=State.UPLOADING)
        totals = uploads.aggregate(number=Count("pk"), arrived=Sum("offset"))
        yield GaugeMetricFamily("anomed_uploads", "Uploads that are not complete.", value=totals["number"])
        yield GaugeMetricFamily("anomed_upload_bytes", "Bytes of them that have arrived.", value=totals["arrived"] or 0)
        entries = GaugeMetricFamily(
            "anomed_entries_under_way", "Entries that are not over, by state.", labels=["state"]
        )
        counts = dict(
            Submission.objects.filter(state__in=UNDER_WAY).order_by().values_list("state").annotate(Count("pk"))
        )
        for state in UNDER_WAY:
            entries.add_metric([state.value], counts.get(state.value, 0))
        yield entries
        yield GaugeMetricFamily(
            "anomed_duels_open", "Duels that are not decided.", value=Duel.objects.pending().count()
        )
