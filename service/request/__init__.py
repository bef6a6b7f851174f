"""Request: from its headers to its answer."""
