"""Metrics and traces of requests: counters in memory that all processes of a server share."""
