"""Where the jobs of a study or an archive run: in this process, several of this machine, or a Slurm or Ray cluster."""
