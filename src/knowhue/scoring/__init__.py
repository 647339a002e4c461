"""Anybody's colourings against the true images: `knowhue score`; no torch but where a network is asked for."""
