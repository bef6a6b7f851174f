"""What /docs says is so: its examples run, and it says everything."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

import kernels
from service import problems
from service.app import create_app
from service.codecs import CODECS
from service.routes import OPERATIONS, openapi
from service.routes.examples import EXAMPLES
from tests.service.cases import ANSWERS
from tests.service.conftest import Client, running

CASES = [
    pytest.param(path, name, id=f"{path}-{name}")
    for path, examples in EXAMPLES.items()
    for name in examples
]


@pytest.fixture(scope="module")
def description(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def content_of(description: dict[str, Any], path: str) -> dict[str, Any]:
    content: dict[str, Any] = description["paths"][path]["post"]["requestBody"]["content"]
    return content


def test_the_description_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def dumps(*_: Any, **__: Any) -> str:
        written.append(1)
        return "{}"

    monkeypatch.setattr(openapi, "json", SimpleNamespace(dumps=dumps))
    with running(create_app(warm=lambda: None)) as client:
        for method in ("GET", "HEAD", "GET"):
            assert client.request(method, "/openapi.json").headers["content-length"] == "2"
    assert written == [1]


def nearly(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: nearly(member) for name, member in value.items()}
    if isinstance(value, list):
        return [nearly(member) for member in value]
    return pytest.approx(value, abs=1.5e-6)


@pytest.mark.parametrize(("path", "name"), CASES)
def test_every_example_runs_and_answers_as_it_says(
    client: Client, description: dict[str, Any], path: str, name: str
) -> None:
    example = content_of(description, path)["application/json"]["examples"][name]
    response = client.post(path, json=example["value"])
    assert response.status_code == 200, response.text
    success = description["paths"][path]["post"]["responses"]["200"]
    promised = success["content"]["application/json"]["examples"][name]["value"]
    assert response.json() == nearly(promised)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_every_field_option_and_format_is_described(
    description: dict[str, Any], operation: Any
) -> None:
    content = content_of(description, operation.path)
    assert content.keys() == {name for codec in CODECS for name in codec.media_types}
    schema = content["application/json"]["schema"]
    options = operation.options.model_fields
    assert schema["properties"].keys() == {
        "dtype",
        *operation.needs,
        *operation.takes,
        *options,
    }
    assert all(field["description"] for field in schema["properties"].values())
    for name, option in options.items():
        # FastAPI leaves out a default that is null: the description says what it means.
        assert schema["properties"][name].get("default") == option.default
    parameters = description["paths"][operation.path]["post"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == set(options)
    for media_type in content.keys() - {"application/json"}:
        assert all(name in content[media_type]["schema"]["description"] for name in operation.needs)


def test_every_output_is_described(description: dict[str, Any]) -> None:
    for path, outputs in ANSWERS.items():
        success = description["paths"][path]["post"]["responses"]["200"]
        members = success["content"]["application/json"]["schema"]["properties"]
        assert members.keys() == ({*kernels.OUTPUTS} if path == "/v1/cross_entropy" else outputs)
        assert all(member["description"] for member in members.values())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_every_error_is_described(description: dict[str, Any], operation: Any) -> None:
    responses = description["paths"][operation.path]["post"]["responses"]
    assert responses.keys() == {"200", *(str(row.status) for row in problems.TABLE.values())}
    for row in problems.TABLE.values():
        response = responses[str(row.status)]
        assert f"`{row.name}`" in response["description"]
        assert response["content"].keys() == {problems.MEDIA_TYPE}


def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(description)))
    names = description["components"]["schemas"]
    assert references == {f"#/components/schemas/{name}" for name in names}


def test_nothing_is_described_that_is_not_there(
    client: Client, description: dict[str, Any]
) -> None:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            named = {
                parameter["name"]: parameter["schema"].get("enum", ["any"])[0]
                for parameter in operation.get("parameters", [])
                if parameter["in"] == "path"
            }
            response = client.request(method.upper(), path.format(**named))
            assert response.status_code not in (404, 405)
            assert str(response.status_code) in operation["responses"]
