"""Where the jobs of a study run: in this process, in several of this machine, or on a Slurm or Ray cluster."""
