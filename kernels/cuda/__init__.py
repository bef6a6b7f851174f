"""The same losses on an NVIDIA GPU. ``launch`` is the way in; nothing here is imported unasked."""
