"""Bulk scoring at scale: its shards, its rates, and simulations of more machines than there are."""
