"""Where the jobs of a study run: in this process, or in several of this machine."""
