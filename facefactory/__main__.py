"""What other processes of a chain run: `python -m facefactory stages FOLDER STAGE…` or `python -m facefactory rank FOLDER`."""

import sys

from facefactory import pipeline

if __name__ == "__main__":
    sys.exit(pipeline.process(sys.argv[1:]))
