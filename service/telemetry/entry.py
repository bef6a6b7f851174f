"""Entry of the journal: what is counted of one request, by the index of each number.

Times are of ``perf_counter_ns``, 0 where there was none. Plain integers, since a request is written
in ten places and each has some tens of nanoseconds.
"""

from __future__ import annotations

# Cells of the totals that the request is counted in: of its route's block, of its status, of the
# problem that it was answered (0: none), of the formats of its body and its answer, of the type and
# the device of its logits (0: none were computed).
ROUTE, STATUS, PROBLEM, FORMAT, REPLY, WORK = range(6)
RECEIVED_BYTES, SENT_BYTES, LOGITS, POSITIONS, ROWS = range(6, 11)
# The header was read; the memory was leased, of which so long was spent with the body's head; all
# of the body was there; decoding began (0: then) and ended with the check; the first step began;
# the last one ended; the answer was encoded; its last byte was with the connection.
BEGAN, LEASED, HEAD, RECEIVED, DECODING, DECODED = range(11, 17)
COMPUTING, COMPUTED, ENCODED, ENDED = range(17, 21)
LENGTH = 21
