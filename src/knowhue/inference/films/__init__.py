"""Films, frame by frame and steady."""
