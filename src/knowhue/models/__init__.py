"""The networks: encoders, heads, discriminators, and the multi-task model."""
