"""What is minimised: the losses of each task and how they add up."""
