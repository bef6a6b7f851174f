"""Spans of sampled requests, sent by OpenTelemetry's SDK over HTTP (the extra ``lossd[otel]``).

They are made when a request has ended, from the times of its record, and only if the sampler says
so: nothing but its answer is asked of the SDK for all other requests. Names and attributes are of
the semantic conventions for HTTP servers (https://opentelemetry.io/docs/specs/semconv/http/).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)

from service import VERSION
from service.telemetry import entry
from service.telemetry.entry import BEGAN, ENDED
from service.telemetry.names import CLIENT_GONE, UNKNOWN
from service.telemetry.record import Record

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
)
# Seconds that the end of the process waits for spans to be sent.
_LAST_SECONDS = 2.0

_log = logging.getLogger("uvicorn.lossd")


class Tracing:
    """Maker of spans, with a thread of the SDK's that sends them.

    ``follows``: whether the sampler takes no trace whose caller has not; those are not asked for.
    """

    def __init__(self, provider: Any, ids: _Ids, sampler: Any, follows: bool) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("lossd", VERSION)
        self._ids = ids
        self._sampler = sampler
        self._follows = follows

    def observe(self, record: Record) -> None:
        """Make the spans of a request that has ended, if it is sampled."""
        scope = record.scope
        if scope is None or (self._follows and record.parent and not record.parent.sampled):
            return
        route = record.counters.labels.get(record.entry[entry.ROUTE], UNKNOWN)
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        name = method.replace("_OTHER", "HTTP") + ("" if route == UNKNOWN else f" {route}")
        context = _remote(record)
        self._ids.trace = record.parent.trace if record.parent else self._ids.generate_trace_id()
        decision = self._sampler.should_sample(
            context, self._ids.trace, name, SpanKind.SERVER, {"http.request.method": method}
        )
        if decision.decision.is_sampled():
            self._make(record, name, context, _attributes(record, method, route))
        self._ids.trace = None

    def _make(self, record: Record, name: str, context: Any, attributes: Mapping[str, Any]) -> None:
        since = time.time_ns() - time.perf_counter_ns()
        times = record.entry
        span = self._tracer.start_span(
            name, context, SpanKind.SERVER, attributes, start_time=times[BEGAN] + since
        )
        within = trace.set_span_in_context(span)
        for phase, began, ended in _phases(record):
            child = self._tracer.start_span(phase, within, start_time=began + since)
            child.end(ended + since)
        if record.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(times[ENDED] + since)
        made = span.get_span_context()
        record.trace, record.span = made.trace_id, made.span_id

    def stop(self) -> None:
        """Send what is left, and end the thread."""
        self._provider.force_flush(int(_LAST_SECONDS * 1000))
        self._provider.shutdown()


def _phases(record: Record) -> list[tuple[str, int, int]]:
    """Name, begin and end of each phase of a computed request; those that took no time left out."""
    times = record.entry
    if not times[entry.WORK]:
        return []
    found = [
        ("queue", times[BEGAN], times[entry.LEASED]),
        ("receive", times[entry.LEASED], times[entry.RECEIVED]),
        ("decode", times[entry.DECODING], times[entry.DECODED]),
        ("queue", times[entry.DECODED], times[entry.COMPUTING]),
        ("compute", times[entry.COMPUTING], times[entry.COMPUTED]),
        ("encode", times[entry.COMPUTED], times[entry.ENCODED]),
        ("send", times[entry.ENCODED], times[ENDED]),
    ]
    return [(name, began, ended) for name, began, ended in found if ended > began]


def _remote(record: Record) -> Any:
    """Context of the caller's span, None where there is no valid ``traceparent``."""
    parent = record.parent
    if parent is None:
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([record.trace_state]) if record.trace_state else None
    context = SpanContext(parent.trace, parent.span, True, flags, state)
    return trace.set_span_in_context(NonRecordingSpan(context))


def _attributes(record: Record, method: str, route: str) -> dict[str, Any]:
    scope = record.scope
    headers = dict(scope["headers"])
    client = scope["client"]
    status = record.status
    failed = str(status) if status >= 500 else None
    # The query is left out: it may hold a secret.
    made = {
        "http.request.method": method,
        "http.request.method_original": scope["method"] if method == "_OTHER" else None,
        "http.route": None if route == UNKNOWN else route,
        "http.response.status_code": None if status == CLIENT_GONE else status,
        "error.type": "client_gone" if status == CLIENT_GONE else failed,
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "server.address": headers.get(b"host", b"").decode("latin-1") or None,
        "client.address": client[0] if client else None,
        "network.protocol.version": scope["http_version"],
        "user_agent.original": headers.get(b"user-agent", b"").decode("latin-1")[:256] or None,
        "http.request.body.size": record.entry[entry.RECEIVED_BYTES],
        "http.response.body.size": record.entry[entry.SENT_BYTES],
        "lossd.request_id": record.request_id.decode("ascii"),
        "lossd.problem": record.problem,
    }
    return {name: value for name, value in made.items() if value is not None}


class _Ids:
    """Generator of ids whose next trace is one that the sampler was asked about."""

    trace: int | None = None

    def __init__(self, random: Any) -> None:
        self._random = random
        self.generate_span_id = random.generate_span_id

    def generate_trace_id(self) -> int:
        return self.trace or int(self._random.generate_trace_id())

    def is_trace_id_random(self) -> bool:
        return True


def started(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Start tracing as the SDK's own variables (OTEL_...) say; None where they name no endpoint.

    Where the SDK is not installed, the log says so.
    """
    wanted = any(environment.get(name) for name in _ENDPOINTS)
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not wanted or disabled or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider, sampling
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError as error:
        _log.warning("no traces are sent: install lossd[otel] (%s)", error)
        return None
    ids = _Ids(RandomIdGenerator())
    sampler = TracerProvider(shutdown_on_exit=False).sampler  # the one that the environment names
    name = {} if "OTEL_SERVICE_NAME" in environment else {SERVICE_NAME: "lossd"}
    provider = TracerProvider(
        sampler=sampling.ALWAYS_ON,  # asked by ``observe`` before
        resource=Resource.create({**name, SERVICE_VERSION: VERSION}),
        id_generator=ids,  # type: ignore[arg-type]
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    chosen = environment.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    return Tracing(provider, ids, sampler, chosen.startswith("parentbased"))
