"""File descriptors: the limit of a process, and the connections that it allows."""

from __future__ import annotations

from service.cli import fail
from service.process import START_FAILED
from service.protocol.limits import REFUSED_PART

# Connections, idle ones included: far more than honest clients open.
_MOST_CONNECTIONS = 16384
# Descriptors for other uses: an idle process holds 16 to 20, and opens a few more where kernels are
# compiled, a GPU is used or shared memory is registered.
_OTHERS = 128
_FEWEST_OTHERS = 48
# Descriptors of a supervisor for each of its workers: pipes, and sockets.
_OF_WORKER = 4
_FEWEST_CONNECTIONS = 8


def most_connections(workers: int) -> int:
    """Raise the soft limit of open files, and return the connections that a process may have.

    ``workers`` inherit the limit. Ends the command where it is too low to serve.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _needed(_MOST_CONNECTIONS, _OTHERS)
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    fewest = _needed(_FEWEST_CONNECTIONS, _FEWEST_OTHERS)
    if workers > 1:
        fewest += _OF_WORKER * workers
    if allowed < fewest:
        raise fail(
            f"only {allowed:,} files may be open (ulimit -n), and {fewest:,} are the fewest to"
            " serve with",
            START_FAILED,
        )
    others = min(_OTHERS, max(_FEWEST_OTHERS, allowed // 4))
    return min(_MOST_CONNECTIONS, (allowed - others) * REFUSED_PART // (REFUSED_PART + 1))


def _needed(connections: int, others: int) -> int:
    """Count the descriptors for ``connections``, those that are refused, and ``others``."""
    return others + connections + -(-connections // REFUSED_PART)
