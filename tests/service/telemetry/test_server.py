"""Metrics, traces and the log of a real server with two workers, everything switched on."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.names import METRICS, PHASES
from tests.service.conftest import serving
from tests.service.telemetry.collector import Collector, attributes, collecting
from tests.service.telemetry.scraping import free_port, value_in

PATIENCE = 60  # seconds until a test that hangs fails
TOKEN = "correct-horse-battery-staple"
LOGIT = 1.3572468  # in every body, and so in no line of the log
BODY = json.dumps({"logits": [[LOGIT, 2.5], [0.5, 1.0]]}).encode()
JSON = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
# Longer than it takes until all workers' counts are there for another to show.
SETTLED = 1.0


@dataclass
class Running:
    """A server: its address, that of its metrics alone, its log, and its collector."""

    url: httpx.URL
    metrics: str
    log: Path
    collector: Collector
    processes: list[int] = field(default_factory=list)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.url.host, self.url.port, timeout=PATIENCE)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def line(self, request_id: str) -> dict[str, Any]:
        """The line of a request, once it is written."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for line in self.lines():
                if line.get("request_id") == request_id:
                    return line
            time.sleep(0.02)
        pytest.fail(f"no line for {request_id}")

    def scraped(self, accept: str = "*/*") -> str:
        return httpx.get(self.metrics, headers={"accept": accept}, trust_env=False).text

    def settled(self) -> str:
        """The metrics, once all requests that have ended are counted."""
        time.sleep(SETTLED)
        return self.scraped()

    def value(self, name: str, **labels: str) -> float:
        """The sample of this name and these labels, 0 where there is none."""
        return value_in(self.scraped(), name, **labels)


def parsed(text: str) -> Iterator[Any]:
    """Families of metrics in OpenMetrics' format."""
    yield from openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("log") / "log"
    port = free_port()
    settings = {
        "LOSSD_WORKERS": "2",
        "LOSSD_AUTH_TOKENS": TOKEN,
        "LOSSD_METRICS_PORT": str(port),
        "LOSSD_METRICS_ALIASES": "triton, kserve",
        "LOSSD_ACCESS_LOG": "true",
        "LOSSD_LOG_FORMAT": "json",
        "NUMBA_NUM_THREADS": "1",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with (
        collecting() as collector,
        serving(
            "sh", "-c", f'exec "$@" 2>{log}', "sh", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            **settings,
        ) as url,
    ):  # fmt: skip
        yield Running(url, f"http://127.0.0.1:{port}/metrics", log, collector)


def post(
    connection: http.client.HTTPConnection, path: str, body: bytes = BODY, **headers: str
) -> http.client.HTTPResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, JSON | named)
    answer = connection.getresponse()
    answer.read()
    return answer


def test_every_metric_is_exposed_and_none_besides(server: Running) -> None:
    connection = server.connection()
    assert post(connection, "/v1/softmax").status == 200
    assert post(connection, "/v2/models/softmax/infer").status == 400
    time.sleep(SETTLED)
    families = {family.name for family in text_string_to_metric_families(server.scraped())}
    aliases = {name for name in families if name.startswith(("nv_inference_", "request_p"))}
    assert families - aliases == {metric.name for metric in METRICS}
    assert len(aliases) == 12
    accept = {"accept": "application/openmetrics-text; version=1.0.0", **JSON}
    connection.request("GET", "/metrics", headers=accept)
    answer = connection.getresponse()
    text = answer.read().decode()
    assert str(answer.headers["content-type"]).startswith("application/openmetrics-text")
    found = {family.name: family for family in parsed(text)}
    assert found.keys() == families
    for metric in METRICS:
        assert found[metric.name].type == metric.kind
        assert found[metric.name].documentation == metric.help
        named = {name for sample in found[metric.name].samples for name in sample.labels}
        assert named - {"le"} == {*metric.labels}
    connection.close()


def test_prometheus_finds_nothing_to_improve_in_names(server: Running) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian's package prometheus")
    ours = re.sub(r"(?m)^(# \w+ )?(nv_inference|request_p).*\n", "", server.scraped())
    subprocess.run(["promtool", "check", "metrics"], input=ours, text=True, check=True, timeout=60)


def test_metrics_need_a_token_unless_on_their_own_port(server: Running) -> None:
    assert httpx.get(f"{server.url}/metrics", trust_env=False).status_code == 401
    assert httpx.get(server.metrics, trust_env=False).status_code == 200
    other = httpx.get(server.metrics.replace("metrics", "v1/softmax"), trust_env=False)
    assert other.status_code == 404


def test_refusals_are_counted_by_reason_and_route(server: Running) -> None:
    """Those of the routes, those before any route, and those that no application sees."""
    url = server.url
    before = server.settled()
    connection = server.connection()
    assert post(connection, "/v1/softmax", b"{}").status == 422
    assert post(connection, "/v1/softmax", authorization="Bearer wrong").status == 401
    assert post(connection, "/nothing-here").status == 404
    assert post(connection, "/v1/softmax", content_type="text/x-unread").status == 415
    for sent, status in (
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000, 431),
        (b"POST /v1/softmax HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n", 400),
        (f"POST /v1/softmax HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
         f"Content-Type: application/json\r\nContent-Length: {2**40}\r\n\r\n".encode(), 413),
    ):  # fmt: skip
        with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE) as raw:
            raw.sendall(sent)
            assert f" {status} ".encode() in raw.recv(65536).partition(b"\r\n")[0]
    connection.close()
    after = server.settled()

    def counted(name: str, **labels: str) -> float:
        return value_in(after, name, **labels) - value_in(before, name, **labels)

    for reason, count in {
        "wrong-tensors": 1, "unauthorized": 1, "unknown-path": 1, "unsupported-media-type": 1,
        "header-too-large": 1, "malformed-request": 1, "too-large": 1, "overloaded": 0,
    }.items():  # fmt: skip
        assert counted("lossd_refused_total", reason=reason) == count, reason
    for route, told in (
        ("/v1/softmax", "422"), ("/v1/softmax", "401"), ("unknown", "404"), ("/v1/softmax", "415"),
        ("unknown", "431"), ("unknown", "400"), ("/v1/softmax", "413"),
    ):  # fmt: skip
        assert counted("lossd_requests_total", route=route, status=told) == 1, (route, told)


def test_a_request_is_counted_by_what_it_computes(server: Running) -> None:
    before = server.settled()
    connection = server.connection()
    logits = {"logits": [[0.5] * 7] * 3, "dtype": "float64"}
    answer = post(connection, "/v1/log_softmax", json.dumps(logits).encode())
    sent = int(str(answer.headers["content-length"]))
    inputs = [{"name": "logits", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3] * 2}]
    body = json.dumps({"inputs": inputs}).encode()
    assert post(connection, "/v2/models/softmax/versions/1/infer", body).status == 200
    connection.request("GET", "/v2/models/softmax/stats", headers=JSON)
    [stats] = json.loads(connection.getresponse().read())["model_stats"]
    connection.close()
    after = server.settled()

    def counted(name: str, **labels: str) -> float:
        return value_in(after, name, **labels) - value_in(before, name, **labels)

    work = {"dtype": "float64", "device": "cpu"}
    assert counted("lossd_logits_total", **work) == 21
    assert counted("lossd_positions_total", **work) == 3
    assert counted("lossd_received_bytes_total", format="json") == len(json.dumps(logits))
    assert counted("lossd_sent_bytes_total", format="json") == sent
    assert counted("lossd_received_bytes_total", format="v2") == len(body)
    for phase in PHASES:
        assert counted("lossd_phase_duration_seconds_count", phase=phase) == 2
    spent = sum(counted("lossd_phase_duration_seconds_sum", phase=phase) for phase in PHASES)
    routes = ("/v1/log_softmax", "/v2/models/softmax/infer")
    assert spent == pytest.approx(
        sum(counted("lossd_request_duration_seconds_sum", route=route) for route in routes)
    )
    model = {"model": "softmax", "version": "1"}
    assert counted("nv_inference_count", **model) == 2
    assert counted("nv_inference_request_success", **model) == 1
    # The protocol's statistics are the same numbers, of all workers.
    assert value_in(after, "nv_inference_count", **model) >= stats["inference_count"] > 0


@pytest.fixture(scope="module")
def prometheus(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that scrapes the server five times a second."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed: Debian's package prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = {
        "global": {"scrape_interval": "200ms"},
        "scrape_configs": [
            {
                "job_name": "lossd",
                "authorization": {"credentials": TOKEN},
                "static_configs": [{"targets": [f"{server.url.host}:{server.url.port}"]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # which is YAML, too
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}",
        f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
        "--log.level=error",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def asked(prometheus: str, query: str, at: float | None = None) -> list[dict[str, Any]]:
    """The result of a query, as soon as Prometheus has one."""
    parameters = {"query": query} | ({} if at is None else {"time": f"{at:.3f}"})
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            answer = httpx.get(f"{prometheus}/api/v1/query", params=parameters, trust_env=False)
            result: list[dict[str, Any]] = answer.json()["data"]["result"]
        except (httpx.HTTPError, KeyError, ValueError):
            result = []
        if result:
            return result
        time.sleep(0.1)
    pytest.fail(f"{query} has no result")


def test_prometheus_has_the_rates_that_were_sent(server: Running, prometheus: str) -> None:
    """Two workers answer on connections of their own; any of them answers the scrapes."""
    asked(prometheus, 'up{job="lossd"} == 1')
    series = 'lossd_requests_total{route="/v1/cross_entropy",status="200"}'
    body = json.dumps({"logits": [[LOGIT, 2.5]], "labels": [1]}).encode()
    connections = [server.connection() for _ in range(8)]
    assert post(connections[0], "/v1/cross_entropy", body).status == 200
    time.sleep(SETTLED)
    before = server.value("lossd_requests_total", route="/v1/cross_entropy", status="200")
    # When each request was sent, and when its answer was there.
    times: list[tuple[float, float]] = []
    began = time.time()
    for number in range(240):
        sent = time.time()
        assert post(connections[number % 8], "/v1/cross_entropy", body).status == 200
        times.append((sent, time.time()))
        time.sleep(0.02)
    ended = time.time()
    time.sleep(SETTLED)
    samples = [
        (float(at), float(value))
        for at, value in asked(prometheus, f"{series}[60s]", ended + SETTLED)[0]["values"]
        if float(at) >= began
    ]
    assert len(samples) > 5
    assert samples[-1][1] == before + len(times)
    for at, value in samples:
        # The other worker's counts are 0.25 s old at most, and a scrape takes a while.
        least = sum(done < at - SETTLED for _, done in times)
        most = sum(sent < at + SETTLED for sent, _ in times)
        assert before + least <= value <= before + most
    # Prometheus' own rate, over the time of the load, is that of what was sent.
    window = int(ended - began)
    [rate] = asked(prometheus, f"sum(rate({series}[{window}s]))", ended)
    sent_per_second = sum(ended - window <= sent for sent, _ in times) / window
    assert float(rate["value"][1]) == pytest.approx(sent_per_second, rel=0.2)
    duration = 'lossd_request_duration_seconds_{}{{route="/v1/cross_entropy"}}'
    [count] = asked(prometheus, duration.format("count"), ended + SETTLED)
    assert float(count["value"][1]) == before + len(times)
    quantile = f"histogram_quantile(0.5, rate({duration.format('bucket')}[{window}s]))"
    [median] = asked(prometheus, quantile, ended)
    assert 0 < float(median["value"][1]) < 60
    [workers] = asked(prometheus, 'lossd_workers{state="ready"}', ended)
    assert float(workers["value"][1]) == 2
    for connection in connections:
        connection.close()


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_sampled_request_is_a_server_span_with_a_child_for_each_phase(server: Running) -> None:
    connection = server.connection()
    parent = f"00-{TRACE}-{SPAN}-01"
    before = time.time_ns()
    answer = post(
        connection,
        "/v1/softmax?class_axis=-1",
        traceparent=parent,
        tracestate="vendor=x",
        user_agent="tests",
        x_request_id="of-a-trace",
    )
    assert answer.status == 200
    server.collector.wait_for(lambda: len(server.collector.of_trace(TRACE)) >= 6)
    spans = server.collector.of_trace(TRACE)
    [span] = [each for each in spans if each.parent_span_id.hex() == SPAN]
    assert (span.name, span.kind) == ("POST /v1/softmax", 2)  # SPAN_KIND_SERVER
    assert span.trace_state == "vendor=x"
    assert span.status.code == 0
    assert before <= span.start_time_unix_nano <= span.end_time_unix_nano <= time.time_ns()
    told = attributes(span)
    assert told["http.request.method"] == "POST"
    assert told["http.route"] == told["url.path"] == "/v1/softmax"
    assert told["http.response.status_code"] == 200
    assert told["url.scheme"] == "http"
    assert told["network.protocol.version"] == "1.1"
    assert told["http.request.body.size"] == len(BODY)
    assert told["user_agent.original"] == "tests"
    assert told["lossd.request_id"] == "of-a-trace"
    assert "class_axis" not in str(told)
    children = [each for each in spans if each.parent_span_id == span.span_id]
    assert {child.name for child in children} <= {*PHASES}
    assert {child.name for child in children} >= {"receive", "decode", "compute", "encode", "send"}
    assert len(children) + 1 == len(spans)
    for child in children:
        assert span.start_time_unix_nano <= child.start_time_unix_nano
        assert child.end_time_unix_nano <= span.end_time_unix_nano
    assert {told["service.name"] for told in server.collector.resources} == {"lossd"}
    # The same trace is an exemplar, and in the line of the log.
    line = server.line("of-a-trace")
    assert (line["trace_id"], line["span_id"]) == (TRACE, span.span_id.hex())
    own = {"trace_id": TRACE, "span_id": span.span_id.hex()}

    def is_exemplar() -> bool:
        families = parsed(server.scraped("application/openmetrics-text; version=1.0.0"))
        samples = [sample for family in families for sample in family.samples if sample.exemplar]
        return own in [sample.exemplar.labels for sample in samples]

    # Requests are counted some at a time, so a route may not be there at once.
    deadline = time.monotonic() + 10
    while not is_exemplar():
        assert time.monotonic() < deadline, "no exemplar of the trace"
        time.sleep(0.05)
    connection.close()


def test_only_a_fault_of_the_server_is_an_error_of_a_span(server: Running) -> None:
    connection = server.connection()
    traces = {}
    for number, (path, body) in enumerate(
        {"/v1/softmax": b"{}", "/v2/repository/models/x/load": b"", "/none": b""}.items(), 1
    ):
        trace = f"{number:032x}"
        traces[path] = trace
        post(connection, path, body, traceparent=f"00-{trace}-{SPAN}-01")
    # Neither of these is: not sampled by its caller, and no caller with a sampler that is off.
    post(connection, "/v1/softmax", traceparent=f"00-{'9' * 32}-{SPAN}-00")
    post(connection, "/v1/softmax")
    server.collector.wait_for(lambda: all(map(server.collector.of_trace, traces.values())))
    found = {path: server.collector.of_trace(trace)[0] for path, trace in traces.items()}
    assert found["/v1/softmax"].status.code == 0
    assert attributes(found["/v1/softmax"])["lossd.problem"] == "wrong-tensors"
    failed = found["/v2/repository/models/x/load"]
    assert failed.status.code == 2
    assert failed.name == "POST /v2/repository/models/{model}/load"
    assert attributes(failed)["error.type"] == "501"
    assert found["/none"].name == "POST"
    assert "http.route" not in attributes(found["/none"])
    assert not server.collector.of_trace("9" * 32)
    known = {TRACE, *traces.values()}
    assert {span.trace_id.hex() for span in server.collector.spans} <= known
    connection.close()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("a-b.c:1", True), ("x" * 128, True), ("x" * 129, False), ("two words", False),
        ("caf\xe9", False), ("", False), ("tab\tbed", False),
    ],
    ids=["sane", "longest", "too long", "a space", "beyond ASCII", "empty", "a control"],
)  # fmt: skip
def test_a_sane_request_id_is_sent_back_and_any_other_replaced(
    server: Running, given: str, taken: bool
) -> None:
    connection = server.connection()
    answers = [
        post(connection, "/v1/softmax", x_request_id=given),
        post(connection, "/v1/softmax", b"{}", x_request_id=given),
    ]
    connection.request("GET", "/healthz", headers={"x-request-id": given})
    answers.append(connection.getresponse())
    answers[-1].read()
    connection.close()
    ids = [answer.headers.get_all("x-request-id") for answer in answers]
    assert all(found is not None and len(found) == 1 for found in ids)
    sent = [str(found[0]) for found in ids if found]
    assert (sent == [given] * 3) if taken else (len({*sent, given}) == 4)
    assert all(re.fullmatch("[!-~]{1,128}", found) for found in sent)


def test_a_line_says_what_a_request_was_and_holds_no_tensor_and_no_token(server: Running) -> None:
    connection = server.connection()
    path = f"/v1/softmax?class_axis=-1&api_key={TOKEN}&x={TOKEN}"
    assert post(connection, path, x_request_id="told").status == 422
    assert post(connection, "/v1/softmax", x_request_id="computed").status == 200
    refused, computed = server.line("told"), server.line("computed")
    assert refused["problem"] == "invalid-option"
    assert refused["path"] == "/v1/softmax?class_axis=-1&api_key=[redacted]&x=[redacted]"
    assert "phases" not in refused
    assert computed["route"] == computed["path"] == "/v1/softmax"
    assert (computed["method"], computed["status"], computed["level"]) == ("POST", 200, "info")
    assert computed["received_bytes"] == len(BODY)
    assert computed["sent_bytes"] > 0
    assert computed["phases"].keys() == {*PHASES}
    assert sum(computed["phases"].values()) == pytest.approx(computed["duration"])
    lines = server.lines()
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]), line
        assert {"time", "level", "message"} <= line.keys()
        assert line.get("route") not in ("/healthz", "/readyz", "/metrics") or line["status"] == 401
    text = server.log.read_text()
    assert str(LOGIT) not in text
    assert TOKEN not in text
    connection.close()


def test_a_worker_that_is_killed_takes_no_request_of_another_along(server: Running) -> None:
    """Requests of each worker go to a route of their own, so that none can hide another's loss."""
    started = [line["message"] for line in server.lines() if "started: process" in line["message"]]
    victim = int(re.findall(r"worker \d+ started: process (\d+)", "\n".join(started))[-1])
    connections = [server.connection() for _ in range(12)]
    for connection in connections:
        assert post(connection, "/v1/nll_loss", b"{}").status == 422
    theirs, others = split(connections, victim)
    assert theirs
    assert others
    before = server.settled()
    answered: dict[int, int] = {}
    ended = threading.Event()

    def load(number: int, connection: http.client.HTTPConnection, path: str) -> None:
        answered[number] = 0
        try:
            while not ended.is_set():
                assert post(connection, path).status == 200
                answered[number] += 1
        except (OSError, http.client.HTTPException):
            assert path == "/v1/log_softmax"

    threads = [
        threading.Thread(target=load, args=(number, each, path))
        for path, group in (("/v1/log_softmax", theirs), ("/v1/softmax", others))
        for number, each in group.items()
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    counted = server.value("lossd_requests_total", route="/v1/log_softmax", status="200")
    os.kill(victim, signal.SIGKILL)
    time.sleep(1)
    ended.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    after = server.settled()
    ok = {"status": "200"}

    def since(route: str) -> float:
        name = "lossd_requests_total"
        return value_in(after, name, route=route, **ok) - value_in(before, name, route=route, **ok)

    assert sum(answered[number] for number in others) == since("/v1/softmax") > 0
    # Of the dead one, what was shown stays, and what is missing was not written yet.
    assert value_in(after, "lossd_requests_total", route="/v1/log_softmax", **ok) >= counted > 0
    assert since("/v1/log_softmax") <= sum(answered[number] for number in theirs) + len(theirs)
    assert value_in(after, "lossd_workers_started_total") >= 2
    for connection in connections:
        connection.close()


def split(
    connections: list[http.client.HTTPConnection], process: int
) -> tuple[dict[int, http.client.HTTPConnection], dict[int, http.client.HTTPConnection]]:
    """Those that worker ``process`` serves, which does not answer while it is stopped; others."""
    os.kill(process, signal.SIGSTOP)
    try:
        for connection in connections:
            connection.request("GET", "/healthz")
        end = time.monotonic() + 2
        live: set[int] = set()
        while time.monotonic() < end:
            for number, connection in enumerate(connections):
                if number not in live and connection.sock is not None:
                    connection.sock.settimeout(0.01)
                    try:
                        if connection.sock.recv(1, socket.MSG_PEEK):
                            live.add(number)
                    except TimeoutError:
                        pass
    finally:
        os.kill(process, signal.SIGCONT)
    for connection in connections:
        assert connection.sock is not None
        connection.sock.settimeout(PATIENCE)
        connection.getresponse().read()
    every = dict(enumerate(connections))
    return (
        {number: each for number, each in every.items() if number not in live},
        {number: each for number, each in every.items() if number in live},
    )
