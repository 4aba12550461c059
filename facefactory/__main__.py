"""What other processes of a chain run: `python -m facefactory stages FOLDER STAGE…` or `python -m facefactory rank FOLDER`."""

import sys

from facefactory import command

if __name__ == "__main__":
    sys.exit(command.process(sys.argv[1:]))
