"""Manifests of bulk scoring: valid pods, alike plans, and options that the command has."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from service import VERSION
from service.cli import bulk, score
from tests.deploy.manifests import DEPLOY, DOCUMENTS, containers, pod_spec
from tests.deploy.test_manifests import VERSIONS

JOB, MERGE = (DOCUMENTS[f"kubernetes/bulk/{name}.yaml"] for name in ("job", "merge"))
DASK = DOCUMENTS["kubernetes/dask/daskjob.yaml"]["spec"]
OF_DASK = {
    "runner": DASK["job"]["spec"],
    "scheduler": DASK["cluster"]["spec"]["scheduler"]["spec"],
    "worker": DASK["cluster"]["spec"]["worker"]["spec"],
}
PODS = {"job": pod_spec(JOB), "merge": pod_spec(MERGE), **OF_DASK}
COMMANDS = ("job", "merge", "runner")


def arguments(pod: str) -> list[str]:
    [container] = PODS[pod]["containers"]
    values: list[str] = container["args"]
    return values


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pod", OF_DASK)
def test_pods_of_dask_are_those_of_kubernetes(pod: str, version: str) -> None:
    document = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": OF_DASK[pod]
    }  # fmt: skip
    kubernetes_validate.validate(document, version, strict=True)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": DASK["cluster"]["spec"]["scheduler"]["service"],
    }
    kubernetes_validate.validate(service, version, strict=True)


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_has_no_more_rights_than_it_needs(pod: str) -> None:
    """Pod Security Standards, level restricted."""
    spec = PODS[pod]
    [container] = spec["containers"]
    allowed = {**spec["securityContext"], **container["securityContext"]}
    assert allowed["runAsNonRoot"] is True
    assert allowed["allowPrivilegeEscalation"] is False
    assert allowed["readOnlyRootFilesystem"] is True
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert allowed["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["image"].removesuffix("-bulk").endswith(f"/lossd:{VERSION}")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {*volumes}
    shards = [mount for mount in container["volumeMounts"] if mount["name"] == "shards"]
    assert all(mount["readOnly"] for mount in shards)


@pytest.mark.parametrize("pod", COMMANDS)
def test_a_command_has_the_options_that_it_is_given(pod: str) -> None:
    alone = typer.Typer()
    alone.command(name="score")(score.command)
    command = typer.main.get_command(alone)
    context = command.make_context("score", arguments(pod)[1:])
    assert context.params["files"]


def test_every_pod_plans_the_same_corpus() -> None:
    assert len({arguments(pod)[1] for pod in COMMANDS}) == 1
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in PODS.values()
        for volume in pod["volumes"]
        if volume["name"] == "journals"
    }
    [claim] = claims
    path = "kubernetes/bulk/persistentvolumeclaim.yaml"
    assert DOCUMENTS[path]["metadata"]["name"] == claim
    assert DOCUMENTS[path]["spec"]["accessModes"] == ["ReadWriteMany"]


def option(pod: str, name: str) -> str:
    given = arguments(pod)
    return given[given.index(name) + 1]


def test_the_parts_are_as_many_as_the_pods() -> None:
    spec = JOB["spec"]
    assert spec["completionMode"] == "Indexed"
    assert option("job", "--part") == f"$(JOB_COMPLETION_INDEX)/{spec['completions']}"
    journal = option("job", "--journal")
    assert journal.replace("$(JOB_COMPLETION_INDEX)", "*") == option("merge", "--merge")
    [container] = containers(JOB)
    assert option("job", "--workers") == container["resources"]["limits"]["cpu"]


def test_exit_statuses_are_those_of_the_command() -> None:
    rules: list[dict[str, Any]] = JOB["spec"]["podFailurePolicy"]["rules"]
    actions = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules[:2]}
    assert actions == {"FailJob": [2], "FailIndex": [bulk.PARTLY]}
    assert all(rule["onExitCodes"]["containerName"] == "lossd" for rule in rules[:2])


def test_workers_of_dask_have_a_thread_and_no_limit_of_dasks_own() -> None:
    assert option("worker", "--nthreads") == "1"
    assert option("worker", "--memory-limit") == "0"
    [scheduler] = OF_DASK["scheduler"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in scheduler["ports"]}
    service = DASK["cluster"]["spec"]["scheduler"]["service"]
    assert {port["targetPort"] for port in service["ports"]} == {*ports}
    assert {port["name"]: port["port"] for port in service["ports"]} == ports
    name = DOCUMENTS["kubernetes/dask/daskjob.yaml"]["metadata"]["name"]
    assert service["selector"]["dask.org/cluster-name"] == name


def test_folders_that_are_not_applied_with_the_servers() -> None:
    applied = [*yaml.safe_load_all((DEPLOY / "kubernetes/deployment.yaml").read_text())]
    assert [document["kind"] for document in applied] == ["Deployment"]
    assert not [path for path in (DEPLOY / "kubernetes").glob("*.yaml") if "job" in path.name]
