"""Tell what each latent dimension of a trained run goes with.

Example: python jobs/interpret.py run=NAME
"""

from facefactory.command import main

if __name__ == "__main__":
    main("interpret", stages=("pack", "judge", "interpret"))
