"""Executors: where pieces are scored. Each is a ``concurrent.futures.Executor``."""


class ExecutorLost(Exception):
    """Executor that can score no more pieces: its text says why, and what to do."""
