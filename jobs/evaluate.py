"""Score a trained run: distances with their scale, protocol and nearest training faces.

Example: python jobs/evaluate.py run=NAME evaluation.fakes=5000
"""

from facefactory.command import main

if __name__ == "__main__":
    main("evaluate", stages=("pack", "judge", "evaluate"))
