"""Ways to colour side by side, at equal pictures and at equal wall-clock."""
