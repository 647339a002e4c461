"""Ways to colour side by side, at equal images and at equal wall-clock."""
