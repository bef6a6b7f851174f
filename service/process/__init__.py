"""The process: warm-up, shutdown, a GPU that failed, Numba's variables."""
