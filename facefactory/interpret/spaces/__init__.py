"""Latent spaces, one a file; the contract is `Space` in the package above."""
