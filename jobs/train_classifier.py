"""Train one classifier: pack the set, train to training.total_kimg.

Example: python jobs/train_classifier.py data.balance=Eyeglasses
"""

from facefactory.command import main

if __name__ == "__main__":
    main("train_classifier", stages=("pack", "train"), preset="convnet-orl32")
