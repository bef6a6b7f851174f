"""Checks of options that are one value each, and their errors."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.errors import InvalidInput

# Ranges of options, in words and as a test; each test is false for NaN.
_NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "label_smoothing": ("between 0.0 and 1.0", lambda value: 0.0 <= value <= 1.0),
    "temperature": ("from 1e-30 to 1e30", lambda value: 1e-30 <= value <= 1e30),
    "softcap": ("from 1e-30 to 1e30", lambda value: 1e-30 <= value <= 1e30),
    "focal": ("zero, or positive and finite", lambda value: 0.0 <= value < math.inf),
    "target_temperature": ("from 1e-30 to 1e30", lambda value: 1e-30 <= value <= 1e30),
    "beta": ("between 0 and 1, and neither", lambda value: 0.0 < value < 1.0),
    "z_loss": ("zero, or positive and finite", lambda value: 0.0 <= value < math.inf),
}


def named(option: str, value: Any, names: tuple[str, ...]) -> str:
    """Check that ``value`` is one of ``names``. Raises ``InvalidInput``, as all here."""
    if value not in names:
        listed = ", ".join(f'"{name}"' for name in names)
        raise InvalidInput(f"{option} must be one of {listed}, not {value!r:.50}", field=option)
    return str(value)


def flag(name: str, value: Any) -> bool:
    """Check that ``value`` is true or false."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidInput(f"{name} must be true or false, not {value!r:.50}", field=name)
    return bool(value)


def integer(name: str, value: Any) -> int:
    """Convert ``value`` to an integer of 64 bits."""
    try:
        whole = operator.index(value)
    except TypeError:
        raise InvalidInput(f"{name} must be an integer, not {value!r:.50}", field=name) from None
    if not -(2**63) <= whole < 2**63:
        raise InvalidInput(f"{name} must fit in 64 bits, not {whole!s:.50}", field=name)
    return whole


def positive(name: str, value: Any) -> int | None:
    """Convert ``value`` to an integer from 1 on, unless it is None."""
    if value is None:
        return None
    whole = integer(name, value)
    if whole < 1:
        raise InvalidInput(f"{name} must be positive, not {whole}", field=name)
    return whole


def number(name: str, value: Any) -> float:
    """Convert ``value`` to a float in the range of the option ``name``."""
    words, is_right = _NUMBERS[name]
    try:
        real = float(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} must be a number, not {value!r:.50}", field=name) from None
    if not is_right(real):
        raise InvalidInput(f"{name} must be {words}, not {real}", field=name)
    return real
