"""The kernels against memory and their peers: ``python -m benchmarks kernels``."""
