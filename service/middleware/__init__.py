"""ASGI middleware around the application: tokens, methods, the direct way to what computes."""
