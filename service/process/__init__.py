"""The process: its warm-up, shutdown, cores, kind of CPU, Numba's variables and exit statuses."""

# Exit status of a failed start, as uvicorn's: supervisors, uvicorn's too, do not try again on it.
START_FAILED = 3
# Exit status after a GPU failure, on which a supervisor starts another process.
DEVICE_FAILED = 4
