"""Models as files, and who runs them."""
