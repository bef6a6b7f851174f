"""ASGI middleware around the application: proxies, origins, tokens, methods, dispatch, drain."""

# Paths of the health probes, which need no token and are not in the access log.
PROBES = frozenset({"/healthz", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
