"""What V2 keeps between requests: the regions that were registered, and how often it was asked."""

from __future__ import annotations

from service.memory.regions import Regions
from service.routes.v2 import models
from service.routes.v2.statistics import Counters
from service.settings import Settings


class State:
    """The state of one application; it starts and ends with it."""

    def __init__(self, settings: Settings) -> None:
        self.regions = Regions(settings.allow_shared_memory, settings.shared_memory_prefix)
        self.counters = {name: Counters() for name in models.MODELS}
