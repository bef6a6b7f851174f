"""Reading PTX: the loops of a kernel, and what is done in them."""

from __future__ import annotations

import re

_LABEL = re.compile(r"^(\$L\w+):")
_BRANCH = re.compile(r"\bbra(\.uni)?\s+(\$L\w+)")
_LEAVES = re.compile(r"^(ret|exit|trap)\b")


def body(ptx: str) -> list[str]:
    """The instructions of the kernel in ``ptx``, which holds one."""
    text = ptx[ptx.index("\n{") + 2 :]
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("//", ".", "}"))]


def loops(lines: list[str]) -> list[list[str]]:
    """The instructions of each innermost loop: each strongly connected part of the flow graph,
    taken apart at its entry until nothing in it is a loop.
    """
    blocks, edges = _graph(lines)
    return [
        [line for block in sorted(part) for line in blocks[block]]
        for part in _innermost(set(edges), edges)
    ]


def _graph(lines: list[str]) -> tuple[list[list[str]], dict[int, set[int]]]:
    """Basic blocks, and to which of them each may go."""
    blocks: list[list[str]] = [[]]
    names: dict[str, int] = {}
    for line in lines:
        label = _LABEL.match(line)
        if label:
            blocks.append([])
            names[label[1]] = len(blocks) - 1
        else:
            blocks[-1].append(line)
            if _BRANCH.search(line):
                blocks.append([])
    edges: dict[int, set[int]] = {}
    for at, block in enumerate(blocks):
        last = block[-1] if block else ""
        branch = _BRANCH.search(last)
        edges[at] = {names[branch[2]]} if branch else set()
        stops = _LEAVES.match(last) or (branch and not last.startswith("@"))
        if not stops and at + 1 < len(blocks):
            edges[at].add(at + 1)
    return blocks, edges


def _innermost(nodes: set[int], edges: dict[int, set[int]]) -> list[set[int]]:
    found = []
    for part in _components(nodes, edges):
        entries = {
            node
            for source in edges
            for node in edges[source]
            if node in part and source not in part
        }
        inner = _innermost(part - (entries or {min(part)}), edges)
        found += inner or [part]
    return found


def _components(nodes: set[int], edges: dict[int, set[int]]) -> list[set[int]]:
    """Those strongly connected parts of ``nodes`` that hold a cycle."""
    reach = {node: _reached(node, nodes, edges) for node in nodes}
    seen: set[int] = set()
    parts = []
    for node in sorted(nodes):
        if node in seen or node not in reach[node]:
            continue
        part = {other for other in reach[node] if node in reach[other]}
        seen |= part
        parts.append(part)
    return parts


def _reached(start: int, nodes: set[int], edges: dict[int, set[int]]) -> set[int]:
    found: set[int] = set()
    todo = [start]
    while todo:
        for node in edges[todo.pop()] & nodes:
            if node not in found:
                found.add(node)
                todo.append(node)
    return found
