"""Sweep GAN architectures: pack, judge, search, take the best to the full budget, score, interpret, report.

Example: python jobs/sweep_gan.py sweep.trials=32 sweep.parallel=8
"""

from facefactory.command import main

if __name__ == "__main__":
    main(
        "sweep_gan",
        stages=("pack", "judge", "sweep", "finalists", "confirm", "report"),
        preset="sweep-dcgan-orl32",
    )
