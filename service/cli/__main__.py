"""Command for ``python -m service.cli``, where the distribution is not installed."""

from service.cli import main

main()
