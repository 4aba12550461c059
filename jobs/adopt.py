"""Take in a generator of other people, to be evaluated, interpreted and drawn from like a run of ours.

Example: python jobs/adopt.py config=foreign.yaml run=foreign
"""

from facefactory.command import main

if __name__ == "__main__":
    main("adopt", stages=("pack", "adopt"), preset="foreign")
