"""Alerts and the dashboard: their expressions are PromQL, and of metrics that lossd has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.telemetry.names import METRICS
from tests.deploy.manifests import DEPLOY, DOCUMENTS

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/lossd.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
# Grafana's variables, by values that they may have.
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}
METRIC = re.compile(r"\b(?:lossd|process|python)_[a-z0-9_]+")


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> dict[str, str]:
    """PromQL by what it is for."""
    found = {}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            found[f"dashboard, {panel['title']} {target['refId']}"] = text
    for rule in ALERTS["groups"][0]["rules"]:
        found[f"alert, {rule['alert']}"] = rule["expr"]
    [trigger, _] = DOCUMENTS["kubernetes/keda/scaledobject.yaml"]["spec"]["triggers"]
    found["autoscaling"] = trigger["metadata"]["query"]
    return found


EXPRESSIONS = expressions()


def promtool(*arguments: str, folder: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs the Debian package prometheus, which has promtool")
    ended = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_expression_is_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"expression:{number}", "expr": text}
        for number, text in enumerate(EXPRESSIONS.values())
    ]
    assert not [text for text in EXPRESSIONS.values() if "$" in text]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "expressions", "rules": rules}]})
    )
    promtool("check", "rules", "rules.yaml", folder=tmp_path)


def test_alerts_fire_when_they_should_and_not_before() -> None:
    tested = yaml.safe_load((DEPLOY / "prometheus/alerts_test.yaml").read_text())["tests"]
    fired = {
        test["alertname"]
        for case in tested
        for test in case["alert_rule_test"]
        if test.get("exp_alerts")
    }
    quiet = {test["alertname"] for test in tested[0]["alert_rule_test"]}
    assert fired == quiet == {rule["alert"] for rule in ALERTS["groups"][0]["rules"]}
    promtool("check", "rules", "alerts.yaml", folder=DEPLOY / "prometheus")
    promtool("test", "rules", "alerts_test.yaml", folder=DEPLOY / "prometheus")


def test_the_dashboard_can_be_imported_anywhere() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert set(variables) == {"datasource", "job", "instance"}
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert 'job=~"$job",instance=~"$instance"' in target["expr"]
    # Side by side, and never on top of each other.
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row.partition(":")[0] for row in rows[:2]] == ["Requests", "Resources"]


def samples() -> set[str]:
    """Names of the samples of all metrics."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {metric.name + end for metric in METRICS for end in endings[metric.kind]}


@pytest.mark.parametrize("use", EXPRESSIONS)
def test_every_metric_is_one_that_lossd_has(use: str) -> None:
    found = set(METRIC.findall(EXPRESSIONS[use]))
    assert found or "up{" in EXPRESSIONS[use]
    assert found <= samples()


def test_every_label_is_one_that_its_metric_has() -> None:
    labels = {label for metric in METRICS for label in metric.labels}
    # Those that Prometheus adds, and of buckets.
    labels |= {"job", "instance", "service", "namespace", "le"}
    for use, text in EXPRESSIONS.items():
        for inside in re.findall(r"\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", inside)) <= labels, use
        for grouped in re.findall(r"by \(([^)]*)\)", text):
            assert {label.strip() for label in grouped.split(",")} <= labels, use
