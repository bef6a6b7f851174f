"""State that V2 keeps between requests: registered regions, and statistics."""

from __future__ import annotations

from service.memory.regions import Regions
from service.routes.v2 import models
from service.routes.v2.statistics import Counters
from service.settings import Settings


class State:
    """State of one application, from its start to its end."""

    def __init__(self, settings: Settings) -> None:
        self.regions = Regions(settings.allow_shared_memory, settings.shared_memory_prefix)
        self.counters = {name: Counters() for name in models.MODELS}
