"""Write report.html and report.json of a run from the files it left.

Example: python jobs/report.py run=NAME
"""

from facefactory.command import main

if __name__ == "__main__":
    main("report", stages=("report",))
