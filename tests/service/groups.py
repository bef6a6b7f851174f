"""Folders like Linux's ``proc`` and ``sys``, with control groups as a test wants them."""

from __future__ import annotations

from pathlib import Path


def tree(root: Path, groups: str, **files: str) -> Path:
    """``root``, with ``proc/self/cgroup`` and ``files`` below it, by their paths."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
