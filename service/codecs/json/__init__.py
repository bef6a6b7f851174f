"""JSON bodies: the object, its members, and tensors' text read straight into arrays."""
