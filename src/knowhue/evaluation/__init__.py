"""How good the colours and classes are: one evaluator for models and baselines alike."""
