"""Scores of any system's colourings against the true images (`knowhue score`); needs torch only for networks."""
