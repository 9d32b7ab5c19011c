"""The SDK of OpenTelemetry: which spans are kept, and how they go to the collector.

Imported only where there is one. Spans go out in batches, from a thread; what a collector that is
away leaves waiting is bounded, and then dropped.
"""

import logging
import time
from collections.abc import Sequence
from importlib.metadata import version
from urllib.parse import urlsplit, urlunsplit

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from pricebook.core.operating_groups import TracingSettings

_PATH = "/v1/traces"
# What the libraries say of each batch, and each try; `_Exporter` says it once a minute.
_TALKATIVE = ("opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk._shared_internal")
_SILENCE_SECONDS = 60.0

log = structlog.get_logger(__name__)


def make_provider(settings: TracingSettings, service: str) -> TracerProvider:
    """Make what makes spans, and sends them.

    The usual variables of OpenTelemetry count, too: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
    OTEL_EXPORTER_OTLP_HEADERS, _CERTIFICATE, _COMPRESSION and _TIMEOUT, and OTEL_BSP_….
    """
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ours = {
        "service.name": service,
        "service.namespace": "pricebook",
        "service.version": version("pricebook"),
    }
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        resource=Resource.create(ours).merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    exporter = _Exporter(OTLPSpanExporter(endpoint(settings)))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def endpoint(settings: TracingSettings) -> str:
    """Return where spans are posted to: the signal's path at the collector that is named."""
    url = urlsplit(settings.url.get_secret_value() if settings.url else "")
    path = url.path.rstrip("/").removesuffix(_PATH)
    return urlunsplit((url.scheme, url.netloc, path + _PATH, url.query, ""))


class _Exporter(SpanExporter):
    """Says now and then, and not each time, that spans are lost."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._told_at = float("-inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._tell()
        return result

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= _SILENCE_SECONDS:
            self._told_at = now
            log.warning("the collector takes no spans; they are lost")

    def shutdown(self) -> None:
        self._exporter.shutdown()
