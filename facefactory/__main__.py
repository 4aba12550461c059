"""What the processes of a chain run: `python -m facefactory stages FOLDER STAGE…`; see process.main."""

import sys

from facefactory import process

if __name__ == "__main__":
    sys.exit(process.main(sys.argv[1:]))
