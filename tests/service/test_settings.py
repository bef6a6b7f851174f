"""Settings come from the environment, are checked at the start, and say what was wrong."""

from __future__ import annotations

import pytest

from service import settings
from service.settings import Settings, SettingsError, load


def test_given_values_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSD_PORT", "9000")
    monkeypatch.setenv("LOSSD_WORKERS", "3")
    chosen = load(port=9001)
    assert (chosen.port, chosen.workers, chosen.host) == (9001, 3, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "http"),
        ("WORKERS", "0"),
        ("LOG_LEVEL", "loud"),
        ("HOST", ""),
        ("MAX_BODY_BYTES", "1GB"),
        ("LANE_QUEUE", "0"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LOSSD_{name}", value)
    with pytest.raises(SettingsError, match=f"LOSSD_{name} is '{value}': .* should"):
        load()


def test_a_service_link_of_kubernetes_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSD_PORT", "tcp://10.0.0.7:80")
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        load()


def test_unknown_settings_are_refused_or_reported() -> None:
    with pytest.raises(SettingsError, match="LOSSD_PRT"):
        load(prt=1)
    names = ["LOSSD_PORT", "LOSSD_MAX_BODY_BYTE", "LOSSDX", "PATH"]
    assert settings.unknown_variables(names) == ["LOSSD_MAX_BODY_BYTE"]


def test_the_environment_carries_settings_to_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = load(port=9002, log_level="debug", max_body_bytes=12345)
    for name, value in chosen.environment().items():
        monkeypatch.setenv(name, value)
    assert load() == chosen


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description is not None
    assert description.endswith(".")
    assert len(description) < 160, "the command shows it beside its option"
    units = ("BYTES", "SECONDS", "ELEMENTS")
    if any(name.upper().endswith(unit) for unit in units):
        assert description.split()[0] in ("Most", "Seconds")


def test_shared_memory_is_for_one_worker() -> None:
    assert load(allow_shared_memory=True).allow_shared_memory
    with pytest.raises(SettingsError, match=r"LOSSD_ALLOW_SHARED_MEMORY is .* a single worker"):
        load(allow_shared_memory="true", workers=2)
    with pytest.raises(SettingsError, match="LOSSD_SHARED_MEMORY_PREFIX"):
        load(shared_memory_prefix="../")
