"""What the processes count and measure, in the form that Prometheus reads.

Several processes answer at one address, so each writes its numbers to files in a folder that
PROMETHEUS_MULTIPROC_DIR names, and whoever is asked adds up all of them. Counters of a process that
has ended stay; what it was doing at its end does not. Without such a folder a process tells of
itself alone. All names begin with `pricebook_`, all times are in seconds.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder; `prometheus_client` reads it as it is imported."""
MEDIA_TYPE: Final = CONTENT_TYPE_LATEST

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_OF_LIVING = re.compile(r"gauge_live\w*_(\d+)\.db")

_OWN = CollectorRegistry()

_REQUESTS = Histogram(
    "pricebook_http_request_duration_seconds",
    "Requests by route, as the document has it, and how long their answers took; streams apart.",
    ("method", "route", "status"),
    registry=_OWN,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_EXPORT_ROWS = Counter("pricebook_export_rows", "Rows of streamed exports.", registry=_OWN)
_EXPORT_BYTES = Counter(
    "pricebook_export_bytes", "Bytes of streamed exports, as sent.", registry=_OWN
)
_UPLOAD_BYTES = Counter("pricebook_upload_bytes", "Bytes of uploads, as they came.", registry=_OWN)
_EXPANDED = Counter(
    "pricebook_events_expanded", "Events that were turned into deliveries.", registry=_OWN
)
_ATTEMPTS = Histogram(
    "pricebook_delivery_attempt_duration_seconds",
    "Attempts to deliver, by lane and by what became of the delivery: delivered, pending, dead.",
    ("lane", "outcome"),
    registry=_OWN,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
)
_READS = Counter(
    "pricebook_replica_reads",
    "Reads, where there is a replica: by who answered them, and why if it was the primary.",
    ("target", "reason"),
    registry=_OWN,
)
_JOBS = Histogram(
    "pricebook_job_duration_seconds",
    "Jobs that ended, by kind and how, and how long they took from their last start.",
    ("kind", "status"),
    registry=_OWN,
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
)
_GAUGES: Final = {
    gauge: Gauge(f"pricebook_{gauge}", text, labels, registry=_OWN, multiprocess_mode="livesum")
    for gauge, text, labels in (
        ("http_requests_in_progress", "Requests under way, streams apart.", ()),
        ("database_connections_in_use", "Connections that are lent out, by pool.", ("pool",)),
        ("database_connections_limit", "Connections that a pool may have.", ("pool",)),
        ("stream_readers", "Live streams that are open.", ()),
        ("password_hashes_waiting", "Log-ins that wait for their hash.", ()),
    )
}
_PROCESSES = Gauge(
    "pricebook_processes",
    "Processes by kind.",
    ("kind",),
    registry=_OWN,
    multiprocess_mode="livesum",
)


def note_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request that has been answered."""
    _request(method if method in _METHODS else "other", route, status).observe(seconds)


@lru_cache(maxsize=4096)
def _request(method: str, route: str, status: int) -> Histogram:
    return _REQUESTS.labels(method, route, str(int(status)))


def note_export(rows: int, sent_bytes: int) -> None:
    """Count what one streamed export has sent, whole or cut off."""
    _EXPORT_ROWS.inc(rows)
    _EXPORT_BYTES.inc(sent_bytes)


def note_upload(received_bytes: int) -> None:
    """Count what has come of an upload."""
    _UPLOAD_BYTES.inc(received_bytes)


def note_expansion(events: int) -> None:
    """Count events that have become deliveries."""
    _EXPANDED.inc(events)


def note_attempt(lane: str, outcome: str, seconds: float) -> None:
    """Count an attempt to deliver."""
    _ATTEMPTS.labels(lane, outcome).observe(seconds)


def note_job(kind: str, status: str, seconds: float) -> None:
    """Count a job that has ended."""
    _JOBS.labels(kind, status).observe(seconds)


def note_reads(target: str, reason: str, count: int) -> None:
    """Count reads that a replica, or in its place the primary, has answered."""
    _READS.labels(target, reason).inc(count)


def note_process(kind: str) -> None:
    """Tell that this process runs, as an `api` or a `worker`."""
    _PROCESSES.labels(kind).set(1)


def measure(gauge: str, value: float, *labels: str) -> None:
    """Say how things stand in this process: one of the gauges above, without their prefix."""
    found = _GAUGES[gauge]
    (found.labels(*labels) if labels else found).set(value)


def exposition(*others: CollectorRegistry) -> bytes:
    """Return the numbers of all processes of the folder, and what stands in `others`."""
    registry = _OWN
    if folder := os.environ.get(FOLDER):
        _forget_the_dead(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # the library leaves it so
    return b"".join(generate_latest(one) for one in (registry, *others))


def _forget_the_dead(folder: Path) -> None:
    """Leave out what processes were doing that are no more."""
    for path in folder.glob("gauge_live*.db"):
        found = _OF_LIVING.fullmatch(path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            with suppress(FileNotFoundError):
                mark_process_dead(found[1], str(folder))  # type: ignore[no-untyped-call]  # likewise


def build() -> CollectorRegistry:
    """Return which version this is, and the schema that it needs."""
    from pricebook.core.schema_head import needed_head  # noqa: PLC0415 -- Alembic takes long to load

    labels = ("version", "schema")
    info = GaugeMetricFamily("pricebook_build_info", "Always 1: the version.", labels=labels)
    info.add_metric((version("pricebook"), needed_head() or ""), 1)
    return told(info)


def told(*families: Metric) -> CollectorRegistry:
    """Return a registry of what is known at this moment; none of it goes into the shared files."""
    registry = CollectorRegistry()
    registry.register(_Told(families))
    return registry


class _Told(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


@contextmanager
def shared_folder() -> Iterator[dict[str, str]]:
    """Make the folder for a parent's processes, and yield the variable that tells them of it."""
    if given := os.environ.get(FOLDER):
        yield {FOLDER: given}
        return
    with tempfile.TemporaryDirectory(prefix="pricebook-metrics-") as folder:
        yield {FOLDER: folder}
