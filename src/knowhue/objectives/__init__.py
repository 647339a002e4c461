"""Losses of each task and the weighting between tasks."""
