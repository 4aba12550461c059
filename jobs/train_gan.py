"""Train one GAN: pack the set, train to training.total_kimg.

Example: python jobs/train_gan.py training.total_kimg=100 model.width=32
"""

from facefactory.command import main

if __name__ == "__main__":
    main("train_gan", stages=("pack", "train"), preset="dcgan-orl32")
