"""The process: warm-up, shutdown, GPU failure, Numba's variables, and its exit statuses."""

# Exit status of a failed start, as uvicorn's: supervisors, uvicorn's too, do not try again on it.
START_FAILED = 3
# Exit status after a GPU failure, on which a supervisor starts another process.
DEVICE_FAILED = 4
