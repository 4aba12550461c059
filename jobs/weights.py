"""Keep published weights in a store on shared storage: list, fetch, add, verify.

Example: python jobs/weights.py fetch inception-2015-12-05
"""

from facefactory.command import keep_weights

if __name__ == "__main__":
    keep_weights()
