"""A trained model at work: any picture in, the same picture in colour and its class out."""
