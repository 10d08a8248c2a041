"""How fast a training step is, part by part, against the device's own rates and against other implementations."""
