"""Where the jobs of a study or an archive run: here, in several processes of this machine, on a Slurm or Ray cluster."""
