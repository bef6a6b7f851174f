"""Corpora of odd shapes and options, as shards, and what one accumulator makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from kernels import LossAccumulator
from service.bulk.plan import Job, Plan, planned
from service.codecs.npz import CODEC as NPZ
from tests import zoo

Tensors = dict[str, zoo.Array]
# Shapes of a row's logits and the class axis: few classes, so that rows are cheap.
SHAPES = {"flat": ((7,), 1), "planes": ((3, 2, 4), 1), "sequence": ((5, 6), -1)}


class Corpus(NamedTuple):
    """Tensors of each shard, and the options as the command takes them."""

    shards: list[Tensors]
    options: dict[str, Any]

    @property
    def query(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.options.items()}

    def written(self, folder: Path) -> list[str]:
        """Paths of the shards, as .npz files in ``folder``."""
        paths = [str(folder / f"shard-{number}.npz") for number in range(len(self.shards))]
        for path, tensors in zip(paths, self.shards, strict=True):
            Path(path).write_bytes(NPZ.encode(tensors))
        return paths

    def planned(self, folder: Path, piece_bytes: int, worst: int = 3, **job: Any) -> Plan:
        plan = planned(self.written(folder), Job({}, {}, worst, **job), self.query, piece_bytes)
        assert plan.failures == []
        return plan

    def whole(self) -> Tensors:
        """Tensors of all shards together."""
        return {
            name: array if name == "weight" else np.concatenate([s[name] for s in self.shards])
            for name, array in self.shards[0].items()
        }

    def accumulated(self) -> LossAccumulator:
        """Accumulator that was fed all shards in order."""
        options = {name: value for name, value in self.options.items() if name != "bytes"}
        weight = self.shards[0].get("weight")
        accumulator = LossAccumulator(weight=weight, **options)
        for shard in self.shards:
            tensors: Mapping[str, Any] = {
                name: shard[name] for name in shard if name not in ("weight", "segments")
            }
            accumulator.update(**tensors)
        return accumulator


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    """Corpus of up to four shards, some without rows."""
    kind = draw(st.sampled_from(sorted(SHAPES)))
    soft = draw(st.booleans())
    rows = draw(st.lists(st.integers(0, 45), min_size=1, max_size=4).filter(any))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape, axis = SHAPES[kind]
    options: dict[str, Any] = {"class_axis": axis} if axis != 1 else {}
    if draw(st.booleans()):
        options["label_smoothing"] = 0.25
    if not soft and draw(st.booleans()):
        options["ignore_index"] = draw(st.sampled_from([-1, 2]))
    names = ["sample_weight", "weight"] + ([] if soft else ["mask"])
    if kind == "sequence":
        names.append("segments")
        if not soft and draw(st.booleans()):
            options["shift"] = draw(st.sampled_from([1, -2]))
    given = draw(st.sets(st.sampled_from(names)))
    make = [_tensors(rng, (count, *shape), axis, soft, given, options) for count in rows]
    if "weight" in given:
        weight = rng.uniform(0, 2, make[0]["logits"].shape[axis])
        make = [{**tensors, "weight": weight} for tensors in make]
    return Corpus(make, options)


def _tensors(
    rng: np.random.Generator,
    shape: Sequence[int],
    axis: int,
    soft: bool,
    given: set[str],
    options: Mapping[str, Any],
) -> Tensors:
    logits = rng.normal(0, 3, shape).astype(np.float32)
    each = np.moveaxis(logits, axis, -1).shape[:-1]
    labels = rng.integers(0, shape[axis], each)
    labels[rng.random(each) < 0.2] = options.get("ignore_index", -100)
    if soft:
        shares = rng.random(shape).astype(np.float32)
        labels = shares / shares.sum(axis, keepdims=True)
    tensors: Tensors = {"logits": logits, "labels": labels}
    if "sample_weight" in given:
        tensors["sample_weight"] = rng.choice([0.0, 0.5, 1.7], each)
    if "mask" in given:
        tensors["mask"] = (rng.random(each) < 0.8).astype(np.uint8)
    if "segments" in given:
        tensors["segments"] = rng.integers(0, 3, each)
    return tensors
