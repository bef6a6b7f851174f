"""The table of metrics, against the page that lists them and against the routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import routes
from service.telemetry import layout
from service.telemetry.names import BUCKETS, METRICS, Metric

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_has_a_line_on_the_page(metric: Metric) -> None:
    name = metric.name + ("_total" if metric.kind == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    line = f"| `{name}` | {metric.kind} | {labels} | {metric.help} |"
    assert line in (ROOT / "docs/metrics.md").read_text().splitlines()


def test_the_page_has_no_metric_besides_and_all_buckets() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    listed = [
        line for line in text.splitlines() if line.startswith(("| `lossd", "| `pro", "| `py"))
    ]
    assert len(listed) == len(METRICS)
    assert ", ".join(f"{bound:g}" for bound in BUCKETS) in text


def test_every_route_has_a_label_and_there_is_room_for_all() -> None:
    labels = routes.labels()
    assert {*routes.ENDPOINTS} <= labels.keys()
    assert labels["/v2/models/softmax/versions/1/infer"] == "/v2/models/softmax/infer"
    for path in ("/metrics", "/healthz", "/openapi.json", "/v2/models/{model}/stats", "/docs"):
        assert labels[path] == path
    assert len({*labels.values()}) < layout.MOST_ROUTES
