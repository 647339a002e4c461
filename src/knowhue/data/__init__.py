"""From pictures on disk to batches: sources, checks, preparation, loading."""
