"""Pages of other origins: none may read an answer, unless a setting names theirs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from service.app import create_app
from service.middleware.origins import cors_origins
from service.settings import Settings, SettingsError
from tests.service import wire
from tests.service.conftest import Client, running, wait_until_ready

ORIGIN, OTHER = "https://page.example", "https://other.example"
ASKED = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
}


def test_by_default_no_page_may_read_an_answer(client: Client) -> None:
    answers = [
        client.get("/healthz", headers={"origin": ORIGIN}),
        client.request("OPTIONS", "/v1/softmax", headers={"origin": ORIGIN, **ASKED}),
    ]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_pages_of_named_origins_may() -> None:
    settings = Settings(cors_origins=ORIGIN, auth_tokens=SecretStr("sixteen-letters-0"))
    with running(create_app(settings, warm=lambda: None)) as client:
        wait_until_ready(client)

        def asked(origin: str) -> Any:
            return client.request("OPTIONS", "/v1/softmax", headers={"origin": origin, **ASKED})

        # A browser asks without a token, and sends it only then.
        allowed = asked(ORIGIN)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        assert "access-control-allow-origin" not in asked(OTHER).headers
        # It may read refusals, too.
        for token, status in (("sixteen-letters-0", 200), ("wrong", 401)):
            answer = client.send(
                "/v1/softmax",
                b'{"logits": [[1, 2]]}',
                wire.JSON,
                origin=ORIGIN,
                authorization=f"Bearer {token}",
            )
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert "retry-after" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("text", ["page.example", "https://page.example/path", "https://a, *.b"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="LOSSD_CORS_ORIGINS holds"):
        cors_origins(Settings(cors_origins=text))


def test_several_origins_and_every_origin() -> None:
    settings = Settings(cors_origins=f"{ORIGIN}, {OTHER}")
    assert cors_origins(settings) == (ORIGIN, OTHER)
    assert cors_origins(Settings(cors_origins="*")) == ("*",)
    assert cors_origins(Settings()) == ()
