"""Score a trained run, or any pictures against others: distances with their scale, protocol and nearest real faces.

Example: python jobs/evaluate.py run=NAME evaluation.fakes=5000
Example: python jobs/evaluate.py data=FOLDER reference=FOLDER
"""

from facefactory.command import main

if __name__ == "__main__":
    main(
        "evaluate",
        stages=("pack", "judge", "evaluate"),
        pair=("pack", "pictures", "evaluate", "report"),
    )
