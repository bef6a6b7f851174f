"""``lossd score``: what it prints, for people and for machines, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress
from safetensors.numpy import save_file

import kernels
from service.cli import score
from tests.service.cli.score_command import machine, refusal, run

WORKED = {
    "logits": np.array(
        [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]], np.float32
    ),
    "labels": np.array([1, 4, 3, 2]),
}


@pytest.fixture
def worked(tmp_path: Path) -> Path:
    """The worked example as a file."""
    path = tmp_path / "worked.npz"
    np.savez(path, logits=WORKED["logits"], labels=WORKED["labels"])
    return path


def test_the_worked_example(worked: Path) -> None:
    answer = machine(worked, "--worst", 1)
    assert answer == {
        "loss": pytest.approx(1.572180, abs=1e-6),
        "perplexity": pytest.approx(4.817139, abs=1e-5),
        "accuracy": 0.0,
        "elements": 4,
        "ignored": 0,
        "count": 4,
        "weight_sum": 4.0,
        "loss_sum": pytest.approx(6.288721, abs=1e-6),
        "bits_per_byte": None,
        "by_sequence": None,
        "worst": [
            {"position": [1], "label": 4, "predicted": 2, "loss": pytest.approx(2.132575, abs=1e-6)}
        ],
    }


@pytest.mark.parametrize(("before", "after"), [(None, "passive"), ("active", "active")])
def test_threads_sleep_unless_told_to_spin(
    worked: Path, before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that what the command sets is taken back
    if before is None:
        del os.environ["OMP_WAIT_POLICY"]
    else:
        os.environ["OMP_WAIT_POLICY"] = before
    assert run(worked).exit_code == 0
    assert os.environ["OMP_WAIT_POLICY"] == after


def test_a_person_reads_the_same(worked: Path) -> None:
    result = run(worked, "--ignore-index", 2)
    assert result.exit_code == 0
    words = result.stdout.split()
    for name, value in (("loss", "1.55976"), ("accuracy", "0.00%"), ("elements", "3")):
        assert words[words.index(name) + 1] == value
    assert "3 (1 more ignored)" in result.stdout
    assert "2.13258" in words


def test_sequences_are_scored_as_the_kernels_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    tensors: dict[str, Any] = {
        "logits": rng.normal(0, 2, (4, 6, 9)).astype(np.float32),
        "labels": rng.integers(0, 9, (4, 6)),
        "mask": rng.random((4, 6)) < 0.7,
    }
    tensors["labels"][1, 1:] = tensors["logits"][1, :-1].argmax(-1)
    tensors["mask"][3] = False
    np.savez(tmp_path / "a.npz", **tensors)
    options = ["--class-axis", -1, "--shift", 1, "--bytes", 30]
    answer = machine(tmp_path / "a.npz", *options)
    names = ["count", "weight_sum", "loss_sum", "perplexity", "bits_per_byte", "rank"]
    names += ["sequence_perplexity", "sequence_count", "sequence_greedy"]
    want = kernels.cross_entropy(**tensors, class_axis=-1, shift=1, bytes=30, outputs=names)
    assert {name: answer[name] for name in names[:5]} == {name: want[name] for name in names[:5]}
    assert answer["accuracy"] == (want["rank"] == 0).sum() / want["count"]
    assert answer["by_sequence"] == {
        "sequences": 3,
        "greedy": want["sequence_greedy"][:3].mean(),
        "perplexity": want["sequence_perplexity"],
    }
    assert answer["elements"] - answer["ignored"] == want["count"]
    for element in answer["worst"]:
        row, place = element["position"]
        assert element["label"] == tensors["labels"][row, place]
        assert element["predicted"] == tensors["logits"][row, place - 1].argmax()
    words = run(tmp_path / "a.npz", *options).stdout
    for text in ("greedy accuracy", "bits per byte", "of them greedy", "sequence perplexity"):
        assert text in words


def test_no_worst_no_table(worked: Path) -> None:
    assert "worst" not in run(worked, "--worst", 0).stdout


def test_every_format_gives_the_same_bytes(worked: Path, tmp_path: Path) -> None:
    save_file(WORKED, tmp_path / "worked.safetensors")
    np.save(tmp_path / "x.npy", WORKED["logits"])
    np.save(tmp_path / "y.npy", WORKED["labels"])
    answers = [
        run("--json", *files).stdout
        for files in (
            [worked],
            [tmp_path / "worked.safetensors"],
            [tmp_path / "x.npy", tmp_path / "y.npy"],
        )
    ]
    assert answers[0] == answers[1] == answers[2] != ""


def test_options_of_the_metadata_count(worked: Path, tmp_path: Path) -> None:
    path = tmp_path / "worked.safetensors"
    save_file(WORKED, path, {"ignore_index": "2", "format": "np"})
    assert machine(path) == machine(worked, "--ignore-index", 2)
    assert "ignore_index" in refusal(path, "--ignore-index", 3)


def test_what_json_has_no_number_for_is_a_text(tmp_path: Path) -> None:
    logits = np.array([[0, np.nan], [0, -np.inf]])
    np.savez(tmp_path / "a.npz", logits=logits, labels=np.array([1, 1]))
    answer = machine(tmp_path / "a.npz")
    assert [answer["loss"], answer["perplexity"]] == ["NaN", "NaN"]
    assert [element["loss"] for element in answer["worst"]] == ["NaN", "Infinity"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{worked}", "--class-axis", "2"], "class_axis"),
        (["{worked}", "--label-smoothing", "2"], "label_smoothing"),
        (["{worked}", "--label-smoothing", "much"], "'much'"),
        (["{worked}", "--class-axis", "0"], "labels"),
        (["nowhere.npz"], "nowhere.npz: No such file"),
        (["logits.npy"], "two .npy files"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_in_a_line(arguments: list[str], message: str, worked: Path) -> None:
    assert message in refusal(*(argument.format(worked=worked) for argument in arguments))


def test_a_label_out_of_range_is_told_with_its_position(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", logits=WORKED["logits"], labels=np.array([1, 4, 5, 2]))
    assert "labels[2] is 5" in refusal(tmp_path / "a.npz")


def test_what_others_keep_in_their_files_is_passed_over_and_named(tmp_path: Path) -> None:
    hidden = np.zeros((4, 2), np.float32)
    others: dict[str, Any] = {"hidden": hidden, "step": np.array(3), "kept": hidden > 0}
    save_file(WORKED | others, tmp_path / "a.safetensors")
    names = np.array(["one", None], object)
    others |= WORKED
    np.savez(tmp_path / "a.npz", names=names, wide=hidden.astype(complex), **others)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("notes.txt", "of no use")
    for path, expected in (
        (tmp_path / "a.safetensors", ["hidden", "step", "kept"]),
        (tmp_path / "a.npz", ["hidden", "step", "kept", "names", "wide", "notes.txt"]),
    ):
        result = run("--json", path)
        assert result.exit_code == 0
        assert json.loads(result.stdout)["loss"] == pytest.approx(1.572180, abs=1e-6)
        assert result.stderr.count("\n") == 1
        assert all(f"'{name}'" in result.stderr for name in expected)


def test_a_tensor_under_another_name_is_pointed_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pred=WORKED["logits"], targets=WORKED["labels"])
    message = refusal(tmp_path / "a.npz")
    assert "holds no logits" in message
    assert "rename 'pred' to logits" in message
    save_file({"logits": WORKED["logits"], "targets": WORKED["labels"]}, tmp_path / "a.safetensors")
    assert "rename 'targets' to labels" in refusal(tmp_path / "a.safetensors")


def test_the_axis_that_would_fit_is_named_as_an_option(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", logits=np.zeros((4, 8, 30)), labels=np.zeros((4, 8), int))
    assert "they fit with --class-axis -1" in refusal(tmp_path / "a.npz")
    assert machine(tmp_path / "a.npz", "--class-axis", -1)["elements"] == 32


def test_probabilities_are_checked_unless_told_not_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", logits=np.zeros((4, 3)), labels=np.ones((4, 3)))
    assert "--no-check-probabilities" in refusal(tmp_path / "a.npz")
    for flag, works in (("--no-check-probabilities", True), ("--check-probabilities", False)):
        assert (run(tmp_path / "a.npz", flag).exit_code == 0) == works


def test_too_little_memory_is_told(worked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(score, "score", fail)
    assert "memory" in refusal(worked)


@pytest.mark.parametrize(
    "arguments", [[], ["a.npz", "--worst", "-1"], ["a.npz", "--nope"]], ids=str
)
def test_wrong_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_the_bar_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[float] = []
    monkeypatch.setattr(Progress, "start", lambda progress: started.append(1))
    with score._progress() as advance:
        advance(1.0)
    assert started == []
    monkeypatch.setattr(score, "_PATIENCE", 0.0)
    with score._progress():
        while not started:
            time.sleep(0.001)


def test_notes_in_metadata_are_passed_over_but_a_misspelled_option_is_not(tmp_path: Path) -> None:
    path, notes = tmp_path / "noted.safetensors", {"format": "pt", "epoch": "3", "loss": "0.3"}
    save_file(WORKED, path, notes)
    assert machine(path)["loss"] == pytest.approx(1.572180, abs=1e-6)
    save_file(WORKED, path, {**notes, "temperature": "2"})
    assert machine(path)["loss"] != pytest.approx(1.572180, abs=1e-6)
    save_file(WORKED, path, {**notes, "temprature": "2"})
    assert "unknown option 'temprature'" in refusal(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBA_DISABLE_JIT", "1"),
        ("NUMBA_NUM_THREADS", "many"),
        ("NUMBA_THREADING_LAYER", "nonsense"),
    ],
)
def test_a_variable_that_numba_cannot_use_is_told_in_a_line(name: str, value: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "service.cli", "score", "none.npz"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith(f"lossd: {name} is {value!r}: it must be ")
    assert ran.stderr.count("\n") == 1
