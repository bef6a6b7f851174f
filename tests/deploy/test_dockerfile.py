"""The Dockerfile's stages: which parts make which image, and how they are built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
STAGE = re.compile(r"^FROM (?P<base>\S+)(?: AS (?P<name>\S+))?\n", re.MULTILINE)


def stages() -> dict[str, str]:
    """The instructions of each stage, by its name, from its FROM on; the last is ``final``."""
    code = re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)
    starts = [*STAGE.finditer(code)]
    ends = [match.start() for match in starts[1:]] + [len(code)]
    return {
        match["name"] or "final": code[match.start() : end]
        for match, end in zip(starts, ends, strict=True)
    }


STAGES = stages()


def needed(target: str) -> list[str]:
    """The stages that ``target`` is made from, and itself, in the file's order."""
    wanted = {target}
    for name in reversed(STAGES):
        if name in wanted:
            used = re.findall(r"^FROM (\S+)|--from=(\S+)", STAGES[name], re.MULTILINE)
            wanted |= {one or other for one, other in used} & STAGES.keys()
    return [name for name in STAGES if name in wanted]


def text_of(target: str) -> str:
    return "\n".join(STAGES[name] for name in needed(target)).lower()


def test_the_image_built_by_default_is_the_last_stage_and_has_nothing_of_cuda() -> None:
    assert list(STAGES)[-1] == "final"
    assert needed("final") == ["build", "runtime", "final"]
    assert not [word for word in ("cuda", "nvidia", "gpu") if word in text_of("final")]


def test_the_image_for_gpus_is_the_same_and_more() -> None:
    assert needed("cuda") == ["build", "build-cuda", "runtime", "cuda"]
    assert "requirements/cuda.txt" in text_of("cuda")
    assert "lossd_device=cuda" in text_of("cuda")


def test_the_image_for_bulk_scoring_is_the_same_and_more() -> None:
    assert needed("bulk") == ["build", "build-bulk", "runtime", "bulk"]
    assert "requirements/bulk.txt" in text_of("bulk")
    assert "bulk" not in text_of("final").replace("bulk scoring", "")


@pytest.mark.parametrize("target", ["final", "cuda", "bulk"])
def test_every_image_runs_as_a_user_and_installs_nothing_unhashed(target: str) -> None:
    text = text_of(target)
    assert "user 10001:10001" in text
    assert text.count("--require-hashes") == text.count("-r requirements/")


def test_every_stage_starts_from_the_base_that_the_builder_is_given() -> None:
    bases = [match["base"] for match in STAGE.finditer(TEXT)]
    assert {base for base in bases if base not in STAGES} == {"${BASE}"}
    assert "ARG BASE=python:3.13-slim\n" in TEXT


def test_the_image_holds_kernels_and_none_of_the_machine_that_built_it() -> None:
    assert "lossd warm --target all" in STAGES["build"]
    assert "numba_cache_dir=/tmp/native" in text_of("final")
    assert "rm -rf /tmp/native" in STAGES["build"]


@pytest.mark.parametrize(
    "label", ["title", "description", "source", "version", "revision", "created", "base.name"]
)
def test_the_image_says_what_it_is(label: str) -> None:
    assert f"org.opencontainers.image.{label}=" in STAGES["runtime"]
    script = (ROOT / "deploy/build_image.sh").read_text()
    for name in re.findall(r"\$\{(\w+)\}", STAGES["runtime"].partition("LABEL")[2]):
        assert f'--build-arg "{name}=' in script
