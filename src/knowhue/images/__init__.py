"""Image files: what counts as one, reading, writing; one reader and writer for training, colorize and server."""
