"""The table of the CUDA kernels' machine code: ``python -m benchmarks cuda-table``."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from kernels import dtypes

_WHAT_IS_MISSING = 'the table needs NVIDIA\'s compilers: pip install "lossd[cuda]"'


def summary(code: Any) -> str:
    """A ``Compiled`` in a few characters."""
    return f"{code.registers} / {code.spilled} / {code.occupancy:.0%}"


def main() -> int:
    """Compiles every kernel for every capability, and prints what became of it.

    1 where one spills.
    """
    try:
        from benchmarks.cuda.compiled import CAPABILITIES, cases, compiled
    except ImportError as error:
        raise SystemExit(f"{_WHAT_IS_MISSING} ({error})") from None
    table = Table(title="CUDA kernels: registers a thread / bytes spilled / occupancy")
    for name in ("kernel", "logits", "for", *(f"sm_{a}{b}" for a, b in CAPABILITIES)):
        table.add_column(name, justify="right" if name.startswith("sm_") else "left")
    spills = False
    for dtype in dtypes.FLOATS:
        for case in cases(dtype):
            made = [compiled(case, capability) for capability in CAPABILITIES]
            table.add_row(case.name, case.logits, case.options, *map(summary, made))
            spills |= any(code.spilled for code in made)
    Console(width=110).print(table)
    return int(spills)
