"""Benchmarks and the demonstration: ``python -m benchmarks --help`` lists them."""
