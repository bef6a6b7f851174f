"""Promises of the OpenAPI description, asked of a real server by Schemathesis.

Requests follow the description, or break it in one place; more than it says makes a loss, so which
of them are taken is for other tests to say.
"""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app
from service.settings import Settings
from tests.fuzz.bodies import EXAMPLES

PER_OPERATION = EXAMPLES // 1000
PATIENCE = 180  # seconds of a request, which may have to compile a kernel: not Schemathesis's 10

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


# Not by Schemathesis's own decorators: these need a part of pytest that pytest 9.2 has no more.
SCHEMA: Any = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
DESCRIBED = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.mark.parametrize("operation", DESCRIBED, ids=lambda operation: operation.label)
def test_every_answer_is_as_described(operation: Any, live_server: httpx.URL) -> None:
    right, broken = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

    @hypothesis.given(case=right | broken)
    @hypothesis.settings(max_examples=PER_OPERATION, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        response = case.call(base_url=str(live_server), timeout=PATIENCE)
        assert response.status_code < 500 or response.status_code == 501
        case.validate_response(response, checks=CHECKS)

    ask()
