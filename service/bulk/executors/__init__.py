"""Executors: where pieces are scored. Each is a ``concurrent.futures.Executor``."""
