"""The service while it is attacked, or asked for too much: ``python -m benchmarks fire``."""
