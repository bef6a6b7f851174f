"""Variable that says how OpenMP's threads wait for work, and what lossd's commands set it to.

libgomp reads it when Numba first starts threads. By default these spin for 8 ms after a kernel, and
a kernel whose threads were asleep takes up to 8 ms more on two cores: the scheduler wakes a thread
on the core of the one that spins for it. Sleeping, they are woken in 0.05 to 0.2 ms.
"""

from __future__ import annotations

VARIABLE, ASLEEP = "OMP_WAIT_POLICY", "passive"
