"""``python -m service.cli``: the command, where the distribution is not installed."""

from service.cli import main

main()
