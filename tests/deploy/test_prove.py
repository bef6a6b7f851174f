"""Which parts of the Dockerfile make which image."""

from __future__ import annotations

import pytest

from deploy.prove import SOURCE, needed, recipes

STAGES = recipes((SOURCE / "Dockerfile").read_text())


def text_of(target: str) -> str:
    return "\n".join(
        " ".join(line) for label in needed(STAGES, target) for line in STAGES[label]
    ).lower()


def test_what_is_built_by_default_is_the_last_stage_and_has_nothing_of_cuda() -> None:
    assert list(STAGES)[-1] == "final"
    assert needed(STAGES, "final") == ["build", "runtime", "final"]
    assert not [word for word in ("cuda", "nvidia", "gpu") if word in text_of("final")]


def test_the_gpus_image_is_the_same_and_more() -> None:
    assert needed(STAGES, "cuda") == ["build", "build-cuda", "runtime", "cuda"]
    assert "requirements/cuda.txt" in text_of("cuda")
    assert "lossd_device=cuda" in text_of("cuda")


@pytest.mark.parametrize("target", ["final", "cuda"])
def test_every_image_runs_as_a_user_and_installs_nothing_unhashed(target: str) -> None:
    text = text_of(target)
    assert "user 10001:10001" in text
    assert text.count("--require-hashes") == text.count("-r requirements/")
