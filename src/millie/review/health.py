"""Whether the service works, and its numbers for Prometheus."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Count, Min
from django.utils import timezone
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from millie.review.intake.limits import RESERVE_BYTES
from millie.review.models import Job, JobStatus, Sample, Worker

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from prometheus_client.metrics_core import Metric

    from millie.review.data_folder import DataFolder

_SILENT_S = 30.0
"""A worker says every 5 s that it lives."""
OK = "ok"


def checks_of(data: DataFolder) -> dict[str, str]:
    """``database``, ``worker`` and ``disk``: ``ok``, or what is wrong."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        database = OK
        alive = _living().exists()
    except DatabaseError:
        database, alive = "does not answer", False
    free = shutil.disk_usage(data.root).free
    return {
        "database": database,
        "worker": OK if alive else "not heard of: samples are taken and wait for it",
        "disk": OK if free > RESERVE_BYTES else f"{free / 1e6:,.0f} MB free: nothing is taken",
    }


def _living() -> QuerySet[Worker]:
    return Worker.objects.filter(seen__gte=timezone.now() - timedelta(seconds=_SILENT_S))


class _Now(Collector):
    """Counts that are read from the database when somebody asks."""

    def collect(self) -> Iterator[Metric]:
        """One family a figure."""
        yield _family("millie_jobs", "Analyses by status", "status", _jobs())
        yield _family("millie_samples", "Unsigned samples by call", "state", _samples())
        oldest = Job.objects.filter(status=JobStatus.QUEUED).aggregate(at=Min("created"))["at"]
        waited = (timezone.now() - oldest).total_seconds() if oldest else 0.0
        yield GaugeMetricFamily(
            "millie_oldest_waiting_seconds", "Age of the oldest analysis that waits", waited
        )
        yield GaugeMetricFamily("millie_workers", "Workers that live", _living().count())
        free = shutil.disk_usage(settings.DATA.root).free
        yield GaugeMetricFamily("millie_disk_free_bytes", "Free on the data folder's disk", free)


def _jobs() -> dict[str, int]:
    found = Job.objects.order_by().values_list("status").annotate(n=Count("pk"))
    return dict.fromkeys(map(str, JobStatus.values), 0) | dict(found)


def _samples() -> dict[str, int]:
    waiting = Sample.objects.filter(signed_at=None).order_by()
    return {
        state or "waiting": n
        for state, n in waiting.values_list("analysis__state").annotate(n=Count("pk"))
    }


def _family(name: str, text: str, label: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, n in sorted(counts.items()):
        family.add_metric([value], n)
    return family


REGISTRY = CollectorRegistry()
REGISTRY.register(_Now())
REQUESTS = Histogram(
    "millie_request_seconds", "Time to answer requests", ["method", "status"], registry=REGISTRY
)
