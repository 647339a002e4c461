"""The networks: encoder, heads, discriminator, and the model that joins them."""
