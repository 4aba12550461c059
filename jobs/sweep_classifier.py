"""Sweep classifiers: pack, search, take the best to the full budget, score on held-out people, report.

Example: python jobs/sweep_classifier.py sweep.trials=16 sweep.parallel=4
"""

from facefactory.command import main

if __name__ == "__main__":
    main(
        "sweep_classifier",
        stages=("pack", "sweep", "finalists", "confirm", "report"),
        preset="sweep-classifier-orl32",
    )
