"""From images on disk to batches: sources, checks, preparation, loading."""
