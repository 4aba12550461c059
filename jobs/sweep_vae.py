"""Sweep VAEs, their networks and their objectives: pack, judge, search, take the best to the full budget, score, interpret, report.

Example: python jobs/sweep_vae.py sweep.sampler=random
"""

from facefactory.command import main

if __name__ == "__main__":
    main(
        "sweep_vae",
        stages=("pack", "judge", "sweep", "finalists", "confirm", "report"),
        preset="sweep-vae-orl32",
    )
