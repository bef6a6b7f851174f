"""Entry of the journal: what is counted of one request, by the index of each number.

Times are of ``perf_counter_ns``, 0 where there was none. Plain integers, since a request is written
in ten places and each has some tens of nanoseconds.
"""

from __future__ import annotations

# Cells of the totals that the request is counted in: of its route's block, of its status, of the
# problem that it was answered (0: none), of the formats of its body and its answer; and of the type
# and the device of its logits (0: none were computed), which ``record.sizes`` gives with the sizes.
ROUTE, STATUS, PROBLEM, FORMAT, REPLY = range(5)
RECEIVED_BYTES, SENT_BYTES = range(5, 7)
WORK, LOGITS, POSITIONS, ROWS = range(7, 11)
# The header was read; the memory was leased, of which so long was spent with the body's head; all
# of the body was there; decoding began, and ended with the check; the first step began;
# the last one ended; the answer was encoded; its last byte was with the connection.
BEGAN, LEASED, HEAD, RECEIVED, DECODING, DECODED = range(11, 17)
COMPUTING, COMPUTED, ENCODED, ENDED = range(17, 21)
LENGTH = 21
