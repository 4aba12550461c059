"""Show how the Slurm jobs of a run stand: state, why they wait, progress, memory, logs of what failed.

Example: python jobs/status.py run=NAME watch=true
"""

from facefactory.command import tell_status

if __name__ == "__main__":
    tell_status()
