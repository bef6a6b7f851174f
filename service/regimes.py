"""Sizes that choose how a request is served; ``docs/regimes.md`` shows which leads where.

Kernels choose by sizes of their own, which that table lists too.
"""

from __future__ import annotations

# How a body is received. A longer one waits in the socket until the application asks for it, and
# can be landed.
LANDED_BODY_BYTES = 2**16
JOINED_BODY_BYTES = 2**13  # or fewer: its tensors are sooner copied than placed in aligned memory
HEAD_BYTES = 2**16  # in which a body should say where its tensors start
UNKNOWN_AHEAD_BYTES = 2**20  # leased, at most, ahead of a body of unknown length
# Claimed at least by a body of unknown length, and of a large budget most: so much one of them
# always has to itself, and the others go on in the rest.
UNKNOWN_CLAIM_BYTES = 2**28

# ``AtOnce``: on the event loop, since a change of thread takes longer than a small loss.
AT_ONCE_BODY_BYTES = 3 * 2**19  # of plain JSON numbers, which are read in less than 1 ms
AT_ONCE_LOGITS = 2**16  # 80 us of one thread: ``kernels.cpu.launch.loss.SERIAL``
AT_ONCE_BYTES = 2**16  # converted before, or made by the kernel: some tens of microseconds
AT_ONCE_SECONDS = 0.002  # of decoding, after which it is begun anew in a lane
# What a codec decodes on the loop, besides JSON.
AT_ONCE_HEADER_BYTES = 2**16  # of safetensors: parsed in less than 1 ms
AT_ONCE_COPIED_BYTES = 2**18  # of V2 inputs outside the body: some tens of microseconds
AT_ONCE_NPZ_BYTES = 2**10  # an archive may inflate to a thousand times as much

# ``Whole``: as long or longer, computed with before all of it has come.
EARLY_BODY_BYTES = 2**22

# ``Streamed``: as long or longer. It is the least budget by default: smaller ones mostly fit whole.
STREAMED_BODY_BYTES = 2**26
STREAMED_HELD_PERCENT = 75  # of the body, at most: a part that is larger saves little memory
STREAMED_STEP_BYTES = 2**22  # of logits at a time: in cache still, and a launch takes only 20 us
# That may come while a step runs and until the next one begins: at least what slides at a time
# (``memory.pages.HUGE``), or a body would wait for ever.
STREAMED_AHEAD_BYTES = 3 * STREAMED_STEP_BYTES

# The compute lane: half a millisecond of work, which overtakes larger work between two steps. It
# takes two turns, one to begin and one for its only step; so many come before each larger step.
OVERTAKING_LOGITS = 2**20
OVERTAKING_TURNS = 16

# Ranks of leases, by what they claim at most. Requests of a few rows are tiny.
TINY_LEASE_BYTES = 2**16
SMALL_LEASE_BYTES = 2**20
# Leased for the head of a body that may be streamed. With 32 such leases at a time that is 4 MiB,
# half of what is for small ones only where the budget is 64 MiB.
OPENING_LEASE_BYTES = 2**17
OPENING_LEASES = 32

# Handed to the connection at a time. It asks for the next when most of these are gone: so much is
# queued for a client that does not read.
REPLY_PIECE_BYTES = 2**18
