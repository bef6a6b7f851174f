"""Computation: the lane of each thread, the device, and kernels compiled on first use."""
