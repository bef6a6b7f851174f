"""Documentation page: what it says is so, its examples run, and nothing is left out."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.routing import APIRoute

from kernels.plan import outputs_of
from service import problems
from service.app import create_app
from service.codecs import CODECS
from service.routes import OPERATIONS, guide, openapi
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
            assert client.request(method, "/openapi.json").headers["content-length"] == "3"
    assert written == [1]


def nearly(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: nearly(member) for name, member in value.items()}
    if isinstance(value, list):
        return [nearly(member) for member in value]
    return None if value is None else pytest.approx(value, abs=1.5e-6)


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
        assert members.keys() == ({*outputs_of(path.rpartition("/")[2])} or outputs) >= outputs
        assert all(member["description"] for member in members.values())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_every_error_is_described(description: dict[str, Any], operation: Any) -> None:
    responses = description["paths"][operation.path]["post"]["responses"]
    assert responses.keys() == {"200", "default"}
    assert responses["default"] == {"$ref": "#/components/responses/Problem"}
    shared = description["components"]["responses"]["Problem"]
    assert shared["content"].keys() == {problems.MEDIA_TYPE}


def test_one_table_lists_every_error(description: dict[str, Any]) -> None:
    text = description["info"]["description"]
    listed = re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \| .+\. \| .+\. \|$", text, re.MULTILINE)
    assert listed == [(str(row.status), row.name) for row in problems.TABLE.values()]
    assert json.dumps(description).count("urn:lossd:problem:") == 2


def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(description)))
    assert references == {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "responses")
        for name in description["components"][kind]
    }


def texts(value: Any) -> Iterator[str]:
    """Every text for readers in a part of the description."""
    if isinstance(value, dict):
        yield from (value[name] for name in ("description", "summary") if name in value)
        value = value.values()
    if not isinstance(value, str):
        for member in value if isinstance(value, Iterable) else ():
            yield from texts(member)


def test_texts_are_for_readers_of_the_page_not_of_the_code(description: dict[str, Any]) -> None:
    found = list(texts(description))
    assert len(found) > 100
    assert not [text for text in found if "``" in text.replace("```", "") or "aises" in text]
    app = create_app(warm=lambda: None)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            docstring = inspect.cleandoc(route.endpoint.__doc__ or "")
            assert route.description, route.path
            assert route.description != docstring, route.path


def test_query_parameters_have_no_default_that_would_be_sent(description: dict[str, Any]) -> None:
    """Swagger UI sends each: then an option of the body is given twice."""
    for operation in OPERATIONS:
        for parameter in description["paths"][operation.path]["post"]["parameters"]:
            schema = parameter["schema"]
            assert schema.keys().isdisjoint({"default", "anyOf"})
            assert schema["type"] in ("string", "number", "integer", "boolean", "array")
            default = operation.options.model_fields[parameter["name"]].default
            said = ",".join(default) if isinstance(default, list) else default
            said = {True: "true", False: "false"}[said] if isinstance(said, bool) else said
            assert default is None or f"`{said}`" in parameter["description"]


RECIPES = re.findall(r"```python\n(.*?)```", guide.DESCRIPTION, re.DOTALL)


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_every_recipe_runs_as_it_stands(
    live_server: httpx.URL, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """Equal logits of five classes: each loss is log(5), and of all labels the mean rank is 2.5."""
    recipe = RECIPES[number]
    assert len(recipe.splitlines()) <= 11
    assert recipe.count("http://127.0.0.1:8000/") == 1
    exec(recipe.replace("http://127.0.0.1:8000", str(live_server).rstrip("/")), {})
    assert "1.609438" in capsys.readouterr().out.replace("1.6094379", "1.609438")


def test_there_is_a_recipe_and_a_layout_for_each_binary_format() -> None:
    assert len(RECIPES) == len(CODECS) - 1 + 1  # but JSON, and V2, which is a codec a request
    assert guide.DESCRIPTION.count("<summary>Layout of ") == len(RECIPES)


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
            assert {str(response.status_code), "default"} & operation["responses"].keys()
