"""ASGI middleware around the application: tokens, methods, direct dispatch, drain."""

# Paths of the health probes, which need no token and are not in the access log.
PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
