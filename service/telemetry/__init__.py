"""Metrics, traces and the access log: counters in memory that all processes of a server share."""
