"""Metrics of colours and classes, with one evaluator for models and baselines."""
