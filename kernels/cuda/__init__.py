"""Losses on an NVIDIA GPU, from ``pipeline.in_steps``; imported only for ``device="cuda"``."""
