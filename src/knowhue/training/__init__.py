"""How a model comes to know: engine, phases, steps, checkpoints, the loop."""
