"""V2 body format, of the Open Inference Protocol."""
