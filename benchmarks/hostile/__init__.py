"""The service under attack, or asked for too much: ``python -m benchmarks hostile``."""
