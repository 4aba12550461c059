"""Look at a cluster as FaceFactory will use it, with a short job on each partition, and propose a profile.

Example: python jobs/check.py partitions=[gpu] folder=/scratch/me/runs
"""

from facefactory.command import check_cluster

if __name__ == "__main__":
    check_cluster()
