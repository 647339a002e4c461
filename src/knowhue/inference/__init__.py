"""A trained model at work: any image in, the same image in colour and its class out."""
