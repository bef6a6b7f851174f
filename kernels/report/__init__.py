"""Reports: what is worth knowing of a model's losses, from its logits and labels.

``report_of`` computes a ``Report``, whose ``numbers`` are what ``/v1/report`` answers. Reports of
parts merge to the report of the whole, with the same bits. A caller that has several machines adds
with ``report_of`` on each, sends ``Report.to_bytes``, and merges.
"""

from __future__ import annotations

from kernels.report.compute import begin, footprint, in_steps, report_of, uncompiled
from kernels.report.numbers import numbers
from kernels.report.state import Report

__all__ = ["Report", "begin", "footprint", "in_steps", "numbers", "report_of", "uncompiled"]
