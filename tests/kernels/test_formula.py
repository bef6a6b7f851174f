"""Scalar formulas as plain Python: ``careful``'s agree with the others, and each stands alone."""

from __future__ import annotations

import ast
import inspect
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kernels import formula
from kernels.formula import LOG2E, TINY, Known

LOGITS = np.array([0.5, -1.0, 2.0])
WEIGHT = np.array([0.5, 2.0, 1.5])
KEPT, SAMPLE = 0.7, 3.0


def options(**changes: Any) -> Any:
    """``Options`` with every term of the loss; exponents of 2 are exact."""
    given = {
        "to_nats": 1.0 / LOG2E,
        "unit": 1.0,
        "keep": KEPT,
        "spread": (1.0 - KEPT) / 3,
        "z_loss": 1e-2,
        "focal": 0.0,
        "weight": WEIGHT,
        "lane_weight": WEIGHT,
        "upstream": 1.0,
    }
    return SimpleNamespace(**given | changes)


def test_no_formula_calls_another() -> None:
    """CUDA compiles each function alone, and would not find a plain Python function by its name."""
    tree = ast.parse(inspect.getsource(formula))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "loss_of" in functions
    for name, function in functions.items():
        named = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        assert not named & (functions.keys() - {"inlined"}), name


@pytest.mark.parametrize("soft", [False, True])
def test_careful_agrees(soft: bool) -> None:
    y, given, peak = (-1, np.array([0.2, 0.5, 0.3]), 2.0) if soft else (1, np.zeros(3), 2.0)
    told = options()
    total = float(np.exp(LOGITS - peak).sum())
    nats = peak + math.log(total)
    q = [formula.target_of(given[c], c, soft, told) for c in range(3)]
    gaps = [formula.scaled_gap(x, peak, TINY) for x in LOGITS]
    terms = [formula.careful_terms(given[c], c, gaps[c], soft, told) for c in range(3)]
    mass, smooth = (sum(term[at] for term in terms) for at in (0, 1))
    careful = Known(
        TINY * (LOGITS[y] - nats),
        math.log(total),
        formula.careful_log_sum_exp(peak, math.log(total), 1.0),
        mass,
        smooth,
        0.0,
    )
    each = q if soft else WEIGHT
    fast = Known(
        (LOGITS[y] - nats) * LOG2E,
        math.log2(total),
        formula.log_sum_exp_of(math.log2(total), peak * LOG2E, told.to_nats),
        float(np.sum(each)),
        float(np.sum(each * (LOGITS - peak))) * LOG2E,
        0.0,
    )
    want = formula.loss_of(fast, y, soft, SAMPLE, told)
    assert formula.careful_loss(careful, y, soft, SAMPLE, told) == pytest.approx(want, rel=1e-12)
    p = np.exp(LOGITS - nats)
    expected, focal = float((given * p).sum()), options(focal=1.5)
    fast, careful = fast._replace(expected=expected), careful._replace(expected=expected)
    want = formula.loss_of(fast, y, soft, SAMPLE, focal)
    assert formula.careful_loss(careful, y, soft, SAMPLE, focal) == pytest.approx(want, rel=1e-12)
    factors = formula.gradient_factors(fast, y, soft, SAMPLE, told)
    assert formula.gradient_factors(careful, y, soft, SAMPLE, told) == pytest.approx(factors)
    gradient = [formula.gradient_of(p[c], q[c], given[c], c == y, factors) for c in range(3)]
    # All logits moved by 1 change z-loss alone, by its derivative.
    assert sum(gradient) == pytest.approx(SAMPLE * 2 * 1e-2 * nats, rel=1e-12)


@pytest.mark.parametrize("loss", [formula.loss_of, formula.careful_loss])
def test_an_ignored_label_has_no_loss(loss: Any) -> None:
    known = Known(*(math.nan,) * 6)
    assert loss(known, -1, False, SAMPLE, options()) == (0.0, 0.0)
    assert formula.gradient_factors(known, -1, False, SAMPLE, options()) == (0.0,) * 4


def test_the_slope_of_the_cap() -> None:
    step = 1e-6
    for raw in (-30.0, -0.5, 0.0, 2.0):
        rise = formula.capped_softly(raw + step, 4.0) - formula.capped_softly(raw - step, 4.0)
        assert formula.slope_of_cap(raw, 4.0) == pytest.approx(rise / (2 * step), abs=1e-9)


def test_gaps_that_float64_cannot_hold() -> None:
    largest = 1.7e308
    assert largest - -largest == math.inf
    assert formula.scaled_gap(-largest, largest, TINY) == pytest.approx(-2 * TINY * largest)
