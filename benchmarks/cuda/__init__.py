"""CUDA kernels: speed on a GPU, and machine code without one."""
