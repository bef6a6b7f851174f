"""Bulk scoring: many shards of logits, cut into pieces for any executor, to the same bits.

A plan cuts shards into pieces; a piece becomes a partial, in whatever process; partials are merged
in the order of the pieces. Nothing here imports the application.
"""
