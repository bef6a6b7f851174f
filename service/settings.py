"""Settings: every limit of the service, with its unit, its default and the reason.

Each field is read from the environment as ``LOSSD_<NAME>``, and is an option of ``lossd serve``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "LOSSD_"

# Settings that are no command-line options: all users of a machine may read command lines.
SECRETS = frozenset({"auth_tokens"})

METRIC_ALIASES = ("triton", "kserve")

_MIB = 2**20
_GIB = 2**30
_Text = Annotated[str, Field(min_length=1)] | None
_Seconds = Annotated[float, Field(gt=0, le=3600)]
_WholeSeconds = Annotated[int, Field(ge=0, le=3600)]
_Bytes = Annotated[int, Field(ge=1, le=2**40)]
_Budget = Annotated[int, Field(ge=0, le=2**50)]


class SettingsError(ValueError):
    """Setting with an unusable value; the message names variable and value, and what is right."""


class Settings(BaseSettings):
    """Settings of one process, fixed at its start."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on: the loopback by default, since without tokens anybody is"
        " answered; 0.0.0.0 for every interface.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="TCP port to listen on; 0 lets the system choose a free one."
    )
    uds: _Text = Field(
        None,
        description="Path of a Unix socket to listen on instead of host and port, of up to 107"
        " bytes; the umask decides who may connect.",
    )
    root_path: str | None = Field(
        None,
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        description="Prefix of every path behind a proxy that does not remove it, such as /loss;"
        " paths without it are answered as well.",
    )
    trusted_proxies: _Text = Field(
        None,
        description="Addresses or networks of proxies, separated by commas, whose Forwarded or"
        " X-Forwarded-For and -Proto are believed; unix for all clients of the Unix socket.",
    )
    cors_origins: _Text = Field(
        None,
        description="Origins whose pages may read answers in a browser, separated by commas, such"
        " as https://example.org; * for every page.",
    )
    tls_certificate: _Text = Field(
        None, description="PEM file of a certificate and its chain: HTTPS is spoken then, no HTTP."
    )
    tls_key: _Text = Field(
        None, description="PEM file of the certificate's key, if that is not in its file."
    )
    auth_token_file: _Text = Field(
        None,
        description="File with bearer tokens, one a line, read at the start: without one of them"
        " only health, the page and /docs are answered (401).",
    )
    auth_tokens: SecretStr | None = Field(
        None,
        min_length=1,
        description="Bearer tokens as well, separated by commas or spaces: in the environment only,"
        " never an option.",
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="Worker processes: one is enough, since one request's kernel already uses every"
        " core; more share the cores, unless NUMBA_NUM_THREADS is set.",
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        "info", description="Least severe level that is logged; lines of requests are info."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the log's lines: for people, or a JSON object a line."
    )
    access_log: bool = Field(
        False, description="Whether the log has a line for each request, which takes some 10 us."
    )
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None,
        description="TCP port that answers /metrics alone, without a token; 0 for a free one.",
    )
    metrics_host: _Text = Field(
        None, description="Address of the metrics' port: by default, that of host."
    )
    metrics_aliases: str = Field(
        "",
        max_length=200,
        description="Other servers whose metrics' names are answered as well: triton, kserve.",
    )
    shutdown_seconds: _WholeSeconds = Field(
        25,
        description="Seconds that running requests are given to finish at shutdown: 25 leaves 5 of"
        " the 30 that Kubernetes grants.",
    )
    drain_seconds: _WholeSeconds = Field(
        0,
        description="Seconds at shutdown, before shutdown_seconds, in which /readyz is 503 and"
        " connections are still taken: for load balancers that notice it late.",
    )
    header_seconds: _Seconds = Field(
        10,
        description="Seconds until a new connection, or one that began a request, has sent a whole"
        " header (408): what the CIS benchmark asks of nginx.",
    )
    header_bytes: Annotated[int, Field(ge=256, le=2**24)] = Field(
        32768,
        description="Most bytes of a request's header (431): four times what common proxies let"
        " through.",
    )
    header_count: Annotated[int, Field(ge=1, le=2**16)] = Field(
        100,
        description="Most fields of a request's header (431): browsers and proxies send some 30.",
    )
    body_bytes_per_second: Annotated[float, Field(gt=0, le=2**40)] = Field(
        65536,
        description="Slowest that a body may come (408), after 10 seconds of patience that every"
        " byte renews: no limit to how long a large one takes.",
    )
    send_seconds: _Seconds = Field(
        30,
        description="Seconds of patience with a client that reads its answer more slowly than"
        " body_bytes_per_second, before it is cut off.",
    )
    keep_alive_seconds: _WholeSeconds = Field(
        75,
        description="Seconds that a connection is kept open between requests: longer than the 60"
        " of common load balancers, so that the balancer closes it, not the server.",
    )
    max_body_bytes: _Bytes = Field(
        _GIB,
        description="Most bytes of one request body: 1 GiB holds 4096 x 131072 bfloat16 logits; a"
        " larger body is refused (413) before it is read.",
    )
    max_decoded_bytes: _Bytes = Field(
        _GIB,
        description="Most bytes that the tensors of one request may hold once decoded, which bounds"
        " what a compressed npz may grow to.",
    )
    max_json_answer_elements: Annotated[int, Field(ge=1, le=2**31)] = Field(
        4 * _MIB,
        description="Most numbers in one JSON answer: 4 Mi are up to 100 MB of text; larger answers"
        " are for the binary formats (406).",
    )
    explain_max_elements: Annotated[int, Field(ge=1, le=2**24)] = Field(
        16384,
        description="Most logits that /v1/explain takes: it returns every intermediate array.",
    )
    lane_queue: Annotated[int, Field(ge=1, le=65536)] = Field(
        64,
        description="Requests that may wait for the compute thread, and as many for the one that"
        " decodes and encodes large bodies; one more is refused (503).",
    )
    memory_bytes: _Budget = Field(
        0,
        description="Most bytes that the requests of a worker hold at a time; 0 for its share of"
        " three quarters of the container's or machine's memory, less 256 MiB.",
    )
    memory_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        10,
        description="Seconds that a request waits for its memory (503): 10 are some hundred bodies"
        " of 256 MiB. A body that takes longer goes first while others wait.",
    )
    compute_seconds: _Seconds = Field(
        60,
        description="Seconds that a computation, decoding or encoding may take, waiting included.",
    )
    compile_seconds: _Seconds = Field(
        30,
        description="Seconds that a request waits for a kernel that is compiled on first use (503,"
        " and the compiling goes on): that takes some 20 on an idle core.",
    )
    dtypes: str = Field(
        "float32,float16,bfloat16,float64",
        min_length=1,
        max_length=200,
        description="Types of logits, log-probabilities and class probabilities that are taken,"
        " separated by commas; others are refused (422), and their kernels never compiled.",
    )

    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu",
        description="What computes requests that name no device: cuda needs an NVIDIA GPU and the"
        " extra cuda; auto is the GPU where there is one, else the CPU.",
    )
    device_memory_bytes: _Budget = Field(
        0,
        description="Most bytes of the GPU's memory that a worker holds, and as many of the host's,"
        " pinned; 0 for its share of 80 % of what is free.",
    )

    page: bool = Field(
        True,
        description="Whether / answers browsers with the page that explains a loss and draws"
        " reports; its requests need a token where there are any.",
    )

    allow_shared_memory: bool = Field(
        False,
        description="Whether V2 clients may have shared memory of this machine read and written:"
        " any that the server's user may read and write; on Linux, with one worker.",
    )
    shared_memory_prefix: str | None = Field(
        None,
        max_length=200,
        pattern="^[A-Za-z0-9_-]*$",
        description="What names of shared memory must start with; by default anything.",
    )

    @field_validator("allow_shared_memory")
    @classmethod
    def _can_share(cls, value: bool, others: ValidationInfo) -> bool:
        if value and (sys.platform != "linux" or others.data.get("workers", 1) > 1):
            raise ValueError("shared memory needs Linux, and a single worker")
        return value

    @field_validator("metrics_aliases")
    @classmethod
    def _are_aliases(cls, value: str) -> str:
        unknown = [name for name in _names(value) if name not in METRIC_ALIASES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(METRIC_ALIASES)}")
        return value

    def metric_aliases(self) -> tuple[str, ...]:
        """Names of servers in ``metrics_aliases``."""
        return tuple(_names(self.metrics_aliases))

    def environment(self) -> dict[str, str]:
        """Return these settings as environment variables, for processes that a supervisor spawns.

        Secrets are left out: those processes inherit them from the environment.
        """
        return {
            variable(name): str(value)
            for name, value in self.model_dump(exclude_none=True, exclude=set(SECRETS)).items()
        }


def _names(value: str) -> list[str]:
    return [name for name in (each.strip() for each in value.split(",")) if name]


def variable(name: str) -> str:
    """Return the environment variable that sets the field ``name``."""
    return PREFIX + name.upper()


def load(**given: Any) -> Settings:
    """Load settings from ``given`` first, the environment second, the defaults last.

    Raises ``SettingsError`` for an unusable value.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentences(error))) from None


def unknown_variables(environment: Iterable[str] | None = None) -> list[str]:
    """Return ``LOSSD_...`` variables that set nothing, which are most likely misspelled."""
    known = {variable(name) for name in Settings.model_fields}
    names = os.environ if environment is None else environment
    return sorted(name for name in names if name.startswith(PREFIX) and name not in known)


def _sentences(error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        value = "set" if name in SECRETS else repr(str(problem["input"])[:200])
        yield f"{variable(name)} is {value}: {problem['msg']}"
        # Kubernetes sets LOSSD_PORT in every pod that runs beside a Service called lossd.
        if name == "port" and str(problem["input"]).startswith("tcp://"):
            yield (
                "that value comes from Kubernetes, for a Service named lossd:"
                " set enableServiceLinks to false in the pod, or LOSSD_PORT to a number"
            )
