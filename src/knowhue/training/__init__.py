"""Training: engine, phases, steps, checkpoints, the loop, one run."""
