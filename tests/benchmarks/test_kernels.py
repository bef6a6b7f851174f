"""The benchmark's own arithmetic: who is let in, what is checked, what the tables say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

import kernels
from benchmarks.__main__ import main
from benchmarks.bars import Bar, bars_table
from benchmarks.kernel import undisturbed
from benchmarks.kernel.contestants import (
    COMPILED,
    EAGER,
    EXPONENTIALS,
    OURS,
    PLAIN,
    READ,
    Contestant,
    Entry,
)
from benchmarks.kernel.measure import Outcome, admit, run_case, temporaries
from benchmarks.kernel.onnx_model import cross_entropy_model
from benchmarks.kernel.report import case_table, limit_of, markdown
from benchmarks.kernel.targets import bars
from benchmarks.kernel.undisturbed import Pace
from benchmarks.kernel.workloads import WORKLOADS
from benchmarks.problems import CASES, LARGE, SEQUENCES, STRIDED, TEN, TINY, Case, Data, data_for
from kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType

SMALL = Case((64, 40))
GRADIENT = dataclasses.replace(SMALL, wants="gradient")


def contestant(call: Callable[[Data], Any], distribution: str = "numpy") -> Contestant:
    """One whose result for some data is the loss that ``call`` gives."""
    return Contestant("it", distribution, lambda data: Entry(lambda: call(data), data.loss_error))


@pytest.mark.parametrize("shape", [(64, 40), (3, 5, 6, 7)], ids=str)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16, BFLOAT16], ids=lambda dtype: dtype.name)
def test_the_reference_is_the_loss(shape: tuple[int, ...], dtype: DType) -> None:
    data = data_for(Case(shape, dtype))
    losses = kernels.cross_entropy(data.logits, data.labels, reduction="none")
    assert data.per_element_error(losses) < 1e-6
    assert data.per_element_error(losses + 1.0) > 0.05


def test_the_reference_of_gradients_is_the_gradient() -> None:
    data = data_for(GRADIENT)
    gradient = kernels.cross_entropy(data.logits, data.labels, outputs=["gradient"])["gradient"]
    assert data.gradient_error(gradient) < 1e-6
    assert data.gradient_error(-gradient) > 0.1


@pytest.mark.parametrize("case", [SMALL, GRADIENT, Case((64, 40), BFLOAT16)], ids=lambda c: c.name)
def test_ours_is_admitted(case: Case) -> None:
    outcome, entry = admit(OURS, data_for(case))
    assert entry is not None
    assert outcome.error is not None
    assert outcome.error < 1e-6


def test_a_gradient_is_measured_in_one_array_and_in_new_ones() -> None:
    data = data_for(GRADIENT)
    same, new = (admit(who, data)[1] for who in (OURS, PLAIN))
    assert same is not None
    assert new is not None
    assert same.call()[1] is same.call()[1]
    assert new.call()[1] is not new.call()[1]


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_are_admitted(name: str) -> None:
    for dtype in (FLOAT32, BFLOAT16):
        data = data_for(Case((64, 40), dtype, wants=name))
        for who in (OURS, PLAIN):
            outcome, entry = admit(who, data)
            assert entry is not None, outcome.refused
            assert outcome.error is not None
            assert outcome.error < 1e-6
        loss, *others = WORKLOADS[name].ours(*WORKLOADS[name].prepare(data))
        assert OURS.enter(data).error((float(loss) + 0.1, *others)) > 0.01
    assert "itself" in str(admit(PLAIN, data_for(SMALL))[0].refused)


def test_a_wrong_contestant_is_not_timed() -> None:
    wrong = contestant(lambda data: kernels.cross_entropy(data.logits, data.labels[::-1]))
    outcomes = run_case(SMALL, [wrong], rounds=1, pace=Pace(allowed=0.0))
    assert "DISAGREES" in str(outcomes["it"].refused)
    assert not outcomes["it"].seconds
    assert "DISAGREES" in "\n".join(case_table(SMALL, outcomes))


def test_turns_are_repeated_while_the_machine_is_slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = [1.0]
    monkeypatch.setattr(undisturbed, "_look", lambda: looks[0])
    pace, turns = Pace(allowed=60.0), iter(range(1, 10))
    after = iter([1.3, 1.3, 1.05, 1.05])  # what each turn leaves behind

    def turn() -> float:
        looks[0] = next(after)
        return float(next(turns))

    # The third turn began beside other work, so the fourth is the first that counts.
    assert pace.counted(turn, lambda: None) == 4.0
    assert (pace.repeated, pace.slowed) == (3, 0)
    looks[0], after = 1.0, iter([2.0])
    pace.allowed = 0.0
    assert pace.counted(turn, lambda: None) == 5.0
    assert (pace.repeated, pace.slowed) == (3, 1)


def test_nan_is_wrong() -> None:
    outcome, entry = admit(contestant(lambda data: math.nan), data_for(SMALL))
    assert entry is None
    assert "DISAGREES" in str(outcome.refused)


def test_a_contestant_that_fails_is_told_of() -> None:
    def fail(data: Data) -> float:
        raise RuntimeError("no compiler\nmuch detail")

    outcome, entry = admit(contestant(fail), data_for(SMALL))
    assert entry is None
    assert outcome.refused == "fails with RuntimeError: no compiler"


def test_a_peer_that_is_not_installed_is_passed_over() -> None:
    outcome, entry = admit(contestant(lambda data: 0.0, "no-such-peer"), data_for(SMALL))
    assert entry is None
    assert outcome.refused == "no-such-peer is not installed"


def test_the_limit_is_a_sum_of_every_number() -> None:
    for size in (400, 401, 1000, 4099):
        data = data_for(Case((size, 3)))
        entry = READ.enter(data)
        assert entry.error(entry.call()) < 1e-5


def test_the_limit_is_the_larger_of_bytes_and_exponentials() -> None:
    data = data_for(Case((64, 40)))
    entry = EXPONENTIALS.enter(data)
    assert entry.error(entry.call()) == 0.0
    assert entry.times >= 1.0
    # A gradient is written as well: as many bytes again.
    reads, both = (READ.enter(data_for(case)).times for case in (SMALL, GRADIENT))
    logits, labels = 64 * 40 * 4, 64 * 8
    assert math.isclose(reads / both, (2 * logits + labels) / (logits + labels))
    assert math.isnan(limit_of({}))
    assert limit_of({READ.name: outcome(2.0), EXPONENTIALS.name: outcome(1.0)}) == 2.0


def test_an_onnx_model_says_what_it_is() -> None:
    model = cross_entropy_model((300, 5), FLOAT32)
    assert model.startswith(bytes((8, 8)))  # field 1, a varint: ir_version 8
    assert b"SoftmaxCrossEntropyLoss" in model
    assert bytes((10, 3, 8, 0xAC, 2)) in model  # a dimension of 300, its varint two bytes long


def outcome(seconds: float) -> Outcome:
    return Outcome(seconds=[seconds] * 3, error=0.0, element_error=3e-7)


def test_ratios_are_of_medians_and_the_best_peer_is_the_fastest() -> None:
    results = {
        case: {
            OURS.name: outcome(1.0),
            READ.name: outcome(0.9),
            EXPONENTIALS.name: outcome(0.97),
            EAGER.name: outcome(10.0),
            COMPILED.name: outcome(2.0),
            PLAIN.name: outcome(0.98),
        }
        for case in CASES
    }
    results[TEN][OURS.name] = Outcome(seconds=[1.25, 100.0, 0.1], element_error=3e-6)
    table = bars(results, grown=0, allocated=100)
    verdicts = {row.what: row for row in table}
    assert verdicts[f"{LARGE.name}, share of the limit"].verdict == "bar"
    assert verdicts[f"{LARGE.name}, share of the limit"].measured == 0.97
    assert verdicts[f"{STRIDED.name}, against the best peer"].verdict == "bar"
    ten = verdicts[f"{TEN.name}, against the best peer"]
    assert (ten.verdict, ten.measured, ten.note) == ("MISSED", 1.6, COMPILED.name)
    eager = verdicts[f"9 cases from {LARGE.name} on, against PyTorch eager"]
    assert (eager.verdict, eager.measured, eager.note) == ("bar", 8.0, TEN.name)
    assert verdicts[f"{TINY.name}, against PyTorch eager"].verdict == "goal"
    assert verdicts[f"{SEQUENCES[0].name}, against {PLAIN.name}"].verdict == "bar"
    assert verdicts["worst single loss against float64"].verdict == "MISSED"
    assert verdicts["N x C temporaries for a loss, bytes a logit"].verdict == "goal"
    assert len(bars_table(table)) == len(table) + 1
    ten_row = f"| {TEN.name} | 0.78 | 970 | 1.60x (torch.compile) | 8.0x | 0.03 GB/s |"
    assert ten_row in markdown(results)


def test_what_was_not_measured_has_no_verdict() -> None:
    assert {row.verdict for row in bars({}, math.nan, math.nan)} == {"not measured"}
    assert Bar("", 2.0, 1.0, 1.5, at_most=True).verdict == "bar"


def test_an_unknown_case_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--case", "none such"]) == 2
    assert LARGE.name in capsys.readouterr().out


def test_one_case_runs_from_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.kernel.main.CONTESTANTS", (OURS,))
    assert main(["kernels", "--quick", "--rounds", "1", "--case", TINY.name]) == 0
    assert f"{TINY.name}  (call to result" in capsys.readouterr().out


def test_temporaries_are_those_that_grow_with_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(logits: Any, labels: Any) -> Any:
        return (logits - logits.max(1, keepdims=True)).sum()

    monkeypatch.setattr(kernels, "cross_entropy", hungry)
    allocated, each = temporaries(Case((256, 1000)))
    assert each == 4.0
    assert allocated >= 256 * 1000 * 4
