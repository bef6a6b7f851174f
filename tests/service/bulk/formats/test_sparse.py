from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale.shards import FORMATS, Array
from service.bulk import formats
from service.errors import DecodeError
from tests.service.bulk.shards import CLASSES, ROWS, contents, opened, write

K = 3


def teacher(tail: tuple[int, ...] = ()) -> dict[str, Array]:
    """Logits, and the likeliest classes of a teacher with their log-probabilities."""
    logits = contents(tail=tail)["logits"]
    scores = contents(rows=ROWS + 1, tail=tail)["logits"][:ROWS].astype(np.float64)
    log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    classes = np.argsort(-log_probs, axis=-1)[..., :K]
    top = np.take_along_axis(log_probs, classes, -1).astype(np.float32)
    return {
        "logits": logits, "target_classes": classes.astype(np.int32), "target_top_log_probs": top
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("tail", [(), (2,)], ids=str)
def test_labels_are_the_teachers_probabilities(
    form: str, tail: tuple[int, ...], tmp_path: Path
) -> None:
    arrays = teacher(tail)
    arrays["target_classes"][5, ..., 1] = -1
    arrays["target_top_log_probs"][5, ..., 1] = np.nan  # of padding, it is not read
    with opened(write(form, tmp_path, arrays)) as shard:
        assert shard.tensors["labels"] == ("float32", arrays["logits"].shape)
        assert "target_classes" not in shard.tensors
        labels = shard.read(2, 20)["labels"]
    wanted = np.zeros((ROWS, *tail, CLASSES))
    for place in np.ndindex(*arrays["target_classes"].shape):
        at = int(arrays["target_classes"][place])
        if at >= 0:
            wanted[(*place[:-1], at)] = np.exp(np.float64(arrays["target_top_log_probs"][place]))
    np.testing.assert_allclose(labels, wanted[2:20], rtol=1e-6)


def test_labels_precede_a_teacher(tmp_path: Path) -> None:
    arrays = teacher()
    arrays["labels"] = contents()["labels"]
    with opened(write("npz", tmp_path, arrays)) as shard:
        assert shard.tensors["labels"].dtype == "int64"


@pytest.mark.parametrize("wrong", [CLASSES, -2])
def test_a_class_that_is_none(wrong: int, tmp_path: Path) -> None:
    arrays = teacher()
    arrays["target_classes"][17, 1] = wrong
    with opened(write("npz", tmp_path, arrays)) as shard:
        shard.read(0, 17)
        with pytest.raises(DecodeError, match=f"row 17: class {wrong} is none of the 7"):
            shard.read(10, ROWS)


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("target_classes", lambda a: a[:, :2], r"target_classes is of shape \[23, 2\]"),
        ("target_classes", lambda a: a[:-1], r"target_classes is of shape \[22, 3\]"),
        ("target_classes", lambda a: a.astype(np.float32), "target_classes is of float32"),
        ("target_top_log_probs", lambda a: a.astype(np.int32), "target_top_log_probs of int32"),
    ],
)
def test_a_teacher_that_does_not_fit(name: str, change: type, text: str, tmp_path: Path) -> None:
    arrays = teacher()
    arrays[name] = change(arrays[name])
    with pytest.raises(DecodeError, match=text):
        formats.opened(write("npz", tmp_path, arrays), {})


def test_half_a_teacher(tmp_path: Path) -> None:
    arrays = teacher()
    del arrays["target_classes"]
    with pytest.raises(DecodeError, match="holds no labels, only: logits"):
        formats.opened(write("npz", tmp_path, arrays), {})
