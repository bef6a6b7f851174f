"""Text of a score: a summary and the worst elements, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: Mapping[str, Any]) -> None:
    """Print a score, as ``lossd score --json`` has it, for people."""
    console = Console()
    summary = Table.grid(padding=(0, 2))
    for name, value in _rows(result):
        summary.add_row(name, value)
    console.print(summary, highlight=False)
    if not result["worst"]:
        return
    sharded = "shard" in result["worst"][0]
    table = Table(
        *(["shard"] if sharded else []), "element", title="worst elements", title_justify="left"
    )
    for name in ("label", "predicted", "loss"):
        table.add_column(name, justify="right")
    # Folders that all have in common say nothing.
    shown = _folders([element.get("shard", "") for element in result["worst"]])
    for element in result["worst"]:
        table.add_row(
            *([element["shard"][shown:]] if sharded else []),
            ", ".join(map(str, element["position"])),
            str(element["label"]),
            str(element["predicted"]),
            f"{element['loss']:.6g}",
        )
    console.print(table, highlight=False)


def _folders(shards: Sequence[str]) -> int:
    """Number of characters that are folders of all ``shards``, which may be URLs."""
    first, last = min(shards), max(shards)
    alike = next((i for i in range(len(first)) if first[i] != last[i : i + 1]), len(first))
    return first.rfind("/", 0, alike) + 1


def _rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    counted = result["elements"] - result["ignored"]
    besides = f" ({result['ignored']:,} more ignored)" if result["ignored"] else ""
    rows = [
        ("loss", f"{result['loss']:.6g}"),
        ("perplexity", f"{result['perplexity']:.6g}"),
        ("greedy accuracy", f"{result['accuracy']:.2%}"),
        ("elements", f"{counted:,}{besides}"),
        ("count", f"{result['count']:,}"),
        ("weight sum", f"{result['weight_sum']:.10g}"),
        ("loss sum", f"{result['loss_sum']:.10g}"),
    ]
    if result["bits_per_byte"] is not None:
        rows.append(("bits per byte", f"{result['bits_per_byte']:.6g}"))
    if (by := result["by_sequence"]) is not None:
        greedy = "" if by["greedy"] is None else f", {by['greedy']:.2%} of them greedy"
        rows.append(("sequences", f"{by['sequences']:,}{greedy}"))
        rows.append(("sequence perplexity", f"{by['perplexity']:.6g}"))
    if "shards" in result:
        failed = len({failure["shard"] for failure in result["failed"]})
        without = f" ({failed:,} of them failed, wholly or in part)" if failed else ""
        rows.append(("shards", f"{result['shards']:,}{without}"))
    return rows
