"""Training: devices, phases, steps, epochs, checkpoints and whole runs."""
