"""HTTP requests, against raw sockets, FastAPI and PyTorch: ``python -m benchmarks http``."""
