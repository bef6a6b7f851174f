"""Table of all metrics: names, types, labels and meanings, for ``/metrics`` and its page."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """Metric family; ``labels`` are the names of its labels."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


# Upper bounds of the buckets of both histograms, in seconds: requests of a few rows take less than
# 1 ms, the largest a minute.
BUCKETS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
)  # fmt: skip

PHASES = ("receive", "queue", "decode", "compute", "encode", "send")

# Label of requests whose path has no route, or was not read.
UNKNOWN = "unknown"
# Status of requests whose client went before it had its answer.
CLIENT_GONE = 499

METRICS: tuple[Metric, ...] = (
    Metric(
        "lossd_requests",
        "counter",
        ("route", "status"),
        "Requests that ended, by route and status; 499: the client went before its answer.",
    ),
    Metric(
        "lossd_request_duration_seconds",
        "histogram",
        ("route",),
        "Time from the end of a request's header to the last byte of its answer.",
    ),
    Metric(
        "lossd_phase_duration_seconds",
        "histogram",
        ("phase",),
        "Time of each phase of the requests whose loss was computed; queue is the wait for memory"
        " and for the compute thread.",
    ),
    Metric("lossd_requests_in_flight", "gauge", (), "Requests that have begun and not ended."),
    Metric(
        "lossd_refused", "counter", ("reason",), "Answers that are errors, by the type of problem."
    ),
    Metric(
        "lossd_logits",
        "counter",
        ("dtype", "device"),
        "Logits, or log-probabilities, whose loss was computed.",
    ),
    Metric(
        "lossd_positions",
        "counter",
        ("dtype", "device"),
        "Positions, of one label each, whose loss was computed.",
    ),
    Metric("lossd_received_bytes", "counter", ("format",), "Bytes of bodies that were received."),
    Metric("lossd_sent_bytes", "counter", ("format",), "Bytes of the bodies of answers."),
    Metric("lossd_memory_leased_bytes", "gauge", (), "Memory that requests hold."),
    Metric("lossd_memory_budget_bytes", "gauge", (), "Memory that requests may hold."),
    Metric(
        "lossd_queue_length",
        "gauge",
        ("queue",),
        "Requests that wait: for memory, or for a thread that computes, transcodes or compiles.",
    ),
    Metric(
        "lossd_queue_limit",
        "gauge",
        ("queue",),
        "Requests that may wait for each thread; one more is refused.",
    ),
    Metric("lossd_connections", "gauge", (), "Open connections."),
    Metric("lossd_connections_limit", "gauge", (), "Connections that are kept at most."),
    Metric(
        "lossd_kernel_compilations",
        "counter",
        (),
        "Kernels that were compiled on first use, while requests waited for them.",
    ),
    Metric("lossd_kernel_threads", "gauge", (), "Threads that kernels may use."),
    Metric("lossd_log_lines_dropped", "counter", (), "Lines of the log that were dropped."),
    Metric("lossd_workers", "gauge", ("state",), "Worker processes: starting, ready, stopping."),
    Metric("lossd_workers_started", "counter", (), "Worker processes that were started."),
    Metric(
        "lossd_build_info",
        "gauge",
        ("version", "python", "numba", "numpy", "device"),
        "1, for the versions of what runs.",
    ),
    Metric("process_cpu_seconds", "counter", (), "CPU time of all processes of the server."),
    Metric("process_resident_memory_bytes", "gauge", (), "Resident memory of all processes."),
    Metric("process_virtual_memory_bytes", "gauge", (), "Virtual memory of all processes."),
    Metric("process_open_fds", "gauge", (), "Open file descriptors of all processes."),
    Metric("process_max_fds", "gauge", (), "File descriptors that one process may have."),
    Metric("process_start_time_seconds", "gauge", (), "Start of the server, since 1970."),
    Metric("python_gc_collections", "counter", ("generation",), "Garbage collections."),
    Metric("python_gc_objects_collected", "counter", ("generation",), "Objects collected."),
    Metric(
        "python_gc_objects_uncollectable", "counter", ("generation",), "Objects not collectable."
    ),
)
