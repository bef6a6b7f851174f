"""Tensors over HTTP, against raw sockets and what FastAPI does: ``python -m benchmarks wire``."""
