"""Write report.html and report.json of a run from the files it left, or a page of all runs of a folder.

Examples: python jobs/report.py run=NAME
          python jobs/report.py runs=FOLDER
"""

from facefactory.command import tell_runs

if __name__ == "__main__":
    tell_runs("report", stages=("report",))
