"""Turns that count: those during which no work of others slowed the machine.

Work of others on a virtual machine's host shares cores, unseen, for seconds or minutes.
Exponentials in L1 took 0.44 ms at one time and 0.9 at another on two such cores, and a loss 2.3 and
3.4 ms, while a plain read took 1.0 at both: shares of a limit said more about the moment than about
the kernel. Where it shares the cores themselves, a core looks ahead over fewer instructions:
exponentials, which wait for little, took 10 to 14 % longer, and a loss of 1,000,000 x 10 28 %
(Zen 4).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.plain_read import exponentials

# Exponentials of a look, and looks of which the fastest counts: 0.4 ms each on two idle cores. For
# the first 8 ms after a pause, threads may share a core.
_COUNT, _LOOKS = 2**23, 30
# Times the least of all looks so far: turns after a slower one do not count.
_DISTURBED = 1.06
# Looks before the first turn.
_FIRST = 100


class Pace:
    """Fastest exponentials so far in this run, and seconds that may be spent on repeated turns.

    ``repeated`` is the number of these turns; ``slowed`` that of disturbed ones that count, as no
    time was left.
    """

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self.repeated = 0
        self.slowed = 0
        self.least = min(_look() for _ in range(_FIRST))

    def disturbed(self) -> bool:
        """Test whether the machine is slower now than it was at its fastest."""
        now = min(_look() for _ in range(_LOOKS))
        self.least = min(self.least, now)
        return now > _DISTURBED * self.least

    def counted(self, turn: Callable[[], float], rest: Callable[[], None]) -> float:
        """Result of ``turn``, repeated until neither the time before nor that after is disturbed.

        The last one counts where no time is left. ``rest`` waits for the threads of a turn.
        """
        before = self.disturbed()
        while True:
            started = time.perf_counter()
            result = turn()
            rest()
            after = self.disturbed()
            if not (before or after):
                return result
            if self.allowed <= 0.0:
                self.slowed += 1
                return result
            before = after
            self.repeated += 1
            self.allowed -= time.perf_counter() - started


def _look() -> float:
    started = time.perf_counter()
    exponentials(_COUNT)
    return time.perf_counter() - started
