"""The clusters of this machine in numbers and alarms. What restarts one that hangs is the supervisor."""

from collections.abc import Iterator

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from prometheus_client.core import GaugeMetricFamily, Metric

from anomed_site import heartbeat
from sandbox.alarms import Condition

# A supervisor has started a cluster again by then, if it could.
MOST_SILENT = 180  # seconds

KINDS = {"cluster_silent": gettext_lazy("Background work hangs")}


class ClustersCollector:
    """Signs of life of the clusters that this machine's supervisor has started."""

    def collect(self) -> Iterator[Metric]:
        silent = GaugeMetricFamily(
            "anomed_cluster_silent_seconds", "Since the cluster was last quite alive.", labels=["cluster"]
        )
        for name in heartbeat.expected():
            silent.add_metric([name], heartbeat.signs(name).silent)
        yield silent


def conditions() -> Iterator[Condition]:
    """Clusters that are silent. The one that asks is alive; others see to it by /healthz and /metrics."""
    for name in heartbeat.expected():
        if heartbeat.signs(name).silent > MOST_SILENT:
            text = _("The cluster “%(cluster)s” gives no sign of life, and its supervisor does not help it.")
            yield Condition("cluster_silent", name, text % {"cluster": name})
