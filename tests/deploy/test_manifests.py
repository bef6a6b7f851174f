"""Manifests for Kubernetes, KServe and Compose: valid, and in step with the settings."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import VERSION, settings
from tests.deploy.manifests import (
    CORE,
    CUSTOM,
    DEPLOY,
    DOCUMENTS,
    containers,
    faults,
    named,
    pod_spec,
)

DEPLOYMENT = DOCUMENTS["kubernetes/deployment.yaml"]
RUNTIME = DOCUMENTS["kserve/servingruntime.yaml"]
SERVERS = [DEPLOYMENT, RUNTIME]
# The oldest with `preStop.sleep`, and the newest that there are schemas of.
VERSIONS = ("1.32", "1.37")


def validate(document: Any, version: str) -> None:
    """Hold ``document`` to the schemas of a version. Importing them takes seconds."""
    import kubernetes_validate

    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", CORE)
def test_a_manifest_is_valid_to_the_letter(path: str, version: str) -> None:
    validate(CORE[path], version)


@pytest.mark.parametrize("path", CUSTOM)
def test_a_custom_resource_has_only_fields_that_there_are(path: str) -> None:
    assert faults(CUSTOM[path]) == []


def test_there_is_what_an_operator_asks_for() -> None:
    assert {named(document).rpartition(" ")[2] for document in DOCUMENTS.values()} == {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "ScaledObject",
        "ServiceMonitor",
        "ServingRuntime",
        "InferenceService",
        "Job",
        "PersistentVolumeClaim",
        "DaskJob",
    }


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("keda/scaledobject.yaml", {"maxReplicas": 10}, "spec.maxReplicas is unknown"),
        ("keda/scaledobject.yaml", {"triggers": [{"type": "cpu"}]}, "metadata is missing"),
        ("keda/scaledobject.yaml", {"maxReplicaCount": "10"}, "is '10', no number"),
        (
            "prometheus-operator/servicemonitor.yaml",
            {"endpoints": {"port": "metrics"}},
            "spec.endpoints is no list",
        ),
    ],
)
def test_the_check_of_custom_resources_finds_faults(
    path: str, change: dict[str, Any], said: str
) -> None:
    document = copy.deepcopy(CUSTOM[f"kubernetes/{path}"])
    document["spec"].update(change)
    assert any(said in fault for fault in faults(document))


def test_the_containers_of_a_runtime_are_those_of_kubernetes() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": containers(RUNTIME), "volumes": RUNTIME["spec"]["volumes"]},
    }
    for version in VERSIONS:
        validate(pod, version)


@pytest.mark.parametrize("document", SERVERS, ids=named)
def test_a_container_has_no_more_rights_than_it_needs(document: dict[str, Any]) -> None:
    """Pod Security Standards, level restricted."""
    [container] = containers(document)
    allowed = {**pod_spec(document).get("securityContext", {}), **container["securityContext"]}
    assert allowed["runAsNonRoot"] is True
    assert allowed["runAsUser"] == 10001
    assert allowed["allowPrivilegeEscalation"] is False
    assert allowed["readOnlyRootFilesystem"] is True
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert allowed["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["image"].endswith(f"/lossd:{VERSION}")
    # All that it writes to.
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/var/cache/lossd"]
    assert (
        f"{container['volumeMounts'][0]['mountPath']}" in (DEPLOY.parent / "Dockerfile").read_text()
    )


@pytest.mark.parametrize("document", SERVERS, ids=named)
def test_the_probes_ask_what_is_theirs_to_ask(document: dict[str, Any]) -> None:
    [container] = containers(document)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    env = {one["name"]: one["value"] for one in container["env"]}
    assert int(env.get("LOSSD_PORT", "8000")) in ports.values()
    ready = {"/readyz", "/v2/health/ready"}
    for probe, paths in (
        ("startupProbe", ready),
        ("readinessProbe", ready),
        ("livenessProbe", {"/livez", "/v2/health/live"}),
    ):
        asked = container[probe]["httpGet"]
        assert asked["path"] in paths
        assert ports.get(asked["port"], asked["port"]) == int(env.get("LOSSD_PORT", "8000"))


@pytest.mark.parametrize("document", SERVERS, ids=named)
def test_every_variable_is_a_setting_with_a_value_that_it_takes(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    [container] = containers(document)
    for one in container["env"]:
        monkeypatch.setenv(one["name"], one["value"])
    assert settings.unknown_variables() == []
    settings.load()


def test_a_pod_has_the_time_to_end() -> None:
    [container] = containers(DEPLOYMENT)
    env = {one["name"]: one["value"] for one in container["env"]}
    needed = (
        container["lifecycle"]["preStop"]["sleep"]["seconds"]
        + int(env["LOSSD_DRAIN_SECONDS"])
        + settings.Settings().shutdown_seconds
    )
    assert pod_spec(DEPLOYMENT)["terminationGracePeriodSeconds"] == needed + 5
    grace = DOCUMENTS["kserve/inferenceservice.yaml"]["spec"]["predictor"]
    assert grace["terminationGracePeriodSeconds"] == needed - 5 + 5


def test_all_name_the_same_pods_and_ports() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/version"] == VERSION
    service, policy, budget, monitor = (
        DOCUMENTS[f"kubernetes/{name}.yaml"]["spec"]
        for name in (
            "service",
            "networkpolicy",
            "poddisruptionbudget",
            "prometheus-operator/servicemonitor",
        )
    )
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        service["selector"],
        policy["podSelector"]["matchLabels"],
        budget["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    of_service = DOCUMENTS["kubernetes/service.yaml"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= of_service.items()
    [container] = containers(DEPLOYMENT)
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["ports"]} == ports
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {
        port["name"] for port in service["ports"]
    }
    for name in ("kubernetes/horizontalpodautoscaler", "kubernetes/keda/scaledobject"):
        target = DOCUMENTS[f"{name}.yaml"]["spec"]["scaleTargetRef"]["name"]
        assert target == DEPLOYMENT["metadata"]["name"]
    assert (
        RUNTIME["metadata"]["name"]
        == (DOCUMENTS["kserve/inferenceservice.yaml"]["spec"]["predictor"]["model"]["runtime"])
    )


def test_compose_mounts_files_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = DEPLOY / "compose"
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert (folder / source).exists() if source[0] == "." else source in compose["volumes"]
    server = compose["services"]["lossd"]
    for name, value in server["environment"].items():
        monkeypatch.setenv(name, value)
    assert settings.unknown_variables() == []
    chosen = settings.load()
    grace = chosen.drain_seconds + chosen.shutdown_seconds + 5
    assert server["stop_grace_period"] == f"{grace}s"
    scraped = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
    [target] = [one for config in scraped for one in config["static_configs"][0]["targets"]]
    assert target == f"lossd:{server['environment']['LOSSD_METRICS_PORT']}"
    provisioned = (folder / "grafana/provisioning/dashboards/lossd.yaml").read_text()
    [path] = re.findall(r"path: (\S+)", provisioned)
    assert any(f":{path}:" in volume for volume in compose["services"]["grafana"]["volumes"])


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs the Debian package prometheus, which has promtool")
    for name in ("compose/prometheus.yml", "prometheus/alerts.yaml"):
        shutil.copy(DEPLOY / name, tmp_path)
    ended = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
