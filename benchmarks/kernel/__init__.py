"""CPU kernels, against memory and other libraries: ``python -m benchmarks kernels``."""
