"""The header traceparent, by the rules of W3C Trace Context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.telemetry.traceparent import parsed

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
@pytest.mark.parametrize("version", ["00", "01", "cc"])
def test_a_valid_one_is_read(version: str, flags: str, sampled: bool) -> None:
    parent = parsed(f"{version}-{TRACE}-{SPAN}-{flags}".encode())
    assert parent == (int(TRACE, 16), int(SPAN, 16), sampled)


def test_a_later_version_may_go_on_behind_a_hyphen() -> None:
    assert parsed(f"01-{TRACE}-{SPAN}-01-what-comes".encode()) is not None
    assert parsed(f"01-{TRACE}-{SPAN}-01what-comes".encode()) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f" 00-{TRACE}-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_any_other_is_as_none(value: str) -> None:
    assert parsed(value.encode()) is None


@given(st.binary(max_size=80))
def test_no_bytes_raise(value: bytes) -> None:
    assert parsed(value) is None or len(value) >= 55
