"""Losses on an NVIDIA GPU, from ``launch.loss.in_steps``; imported only for ``device="cuda"``."""
