"""Every limit of the service, with its unit, its default and why.

Each field is read from the environment as ``LOSSD_<NAME>``, and is an option of ``lossd serve``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "LOSSD_"

_MIB = 2**20
_GIB = 2**30


class SettingsError(ValueError):
    """A setting cannot be used: the message names its variable, its value, and what is right."""


class Settings(BaseSettings):
    """What one process of the service is told at its start, and never again."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on: the loopback by default, since there is no"
        " authentication; 0.0.0.0 for every interface.",
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 lets the system choose a free one.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Worker processes: one is enough, since one request's kernel already uses every"
        " core; more share the cores, unless NUMBA_NUM_THREADS is set.",
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        "info", description="Least severe level that is logged; info holds one line a request."
    )
    shutdown_seconds: int = Field(
        25,
        ge=0,
        le=3600,
        description="Seconds that running requests are given to finish at shutdown: 25 leaves 5 of"
        " the 30 that Kubernetes grants.",
    )
    max_body_bytes: int = Field(
        _GIB,
        ge=1,
        le=2**40,
        description="Most bytes of one request body: 1 GiB holds 4096 x 131072 bfloat16 logits; a"
        " larger body is refused (413) before it is read.",
    )
    max_decoded_bytes: int = Field(
        _GIB,
        ge=1,
        le=2**40,
        description="Most bytes that the tensors of one request may hold once decoded, which bounds"
        " what a compressed npz may grow to.",
    )
    max_json_answer_elements: int = Field(
        4 * _MIB,
        ge=1,
        le=2**31,
        description="Most numbers in one JSON answer: 4 Mi are up to 100 MB of text; larger answers"
        " are for the binary formats (406).",
    )
    explain_max_elements: int = Field(
        16384,
        ge=1,
        le=2**24,
        description="Most logits that /v1/explain takes: it returns every intermediate array, to be"
        " read by a person.",
    )
    lane_queue: int = Field(
        64,
        ge=1,
        le=65536,
        description="Requests that may wait for the compute thread, and as many for the one that"
        " decodes and encodes large bodies; one more is refused (503).",
    )

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for the processes that a supervisor spawns."""
        return {variable(name): str(value) for name, value in self.model_dump().items()}


def variable(name: str) -> str:
    """The environment variable that sets the field ``name``."""
    return PREFIX + name.upper()


def load(**given: Any) -> Settings:
    """Settings from ``given`` first, the environment second, the defaults last.

    Raises ``SettingsError`` where a value cannot be used.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentences(error))) from None


def unknown_variables(environment: Iterable[str] | None = None) -> list[str]:
    """``LOSSD_...`` variables that set nothing: most likely misspelt, so worth a warning."""
    known = {variable(name) for name in Settings.model_fields}
    names = os.environ if environment is None else environment
    return sorted(name for name in names if name.startswith(PREFIX) and name not in known)


def _sentences(error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        yield f"{variable(name)} is {str(problem['input'])[:200]!r}: {problem['msg']}"
        # Kubernetes sets LOSSD_PORT in every pod that runs beside a Service called lossd.
        if name == "port" and str(problem["input"]).startswith("tcp://"):
            yield (
                "that value comes from Kubernetes, for a Service named lossd:"
                " set enableServiceLinks to false in the pod, or LOSSD_PORT to a number"
            )
