"""Relations of latent codes [N, D] to labels."""
