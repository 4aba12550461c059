"""Train one VAE: pack the set, train to training.total_kimg.

Example: python jobs/train_vae.py objective.beta=4
"""

from facefactory.command import main

if __name__ == "__main__":
    main("train_vae", stages=("pack", "train"), preset="conv-orl32")
