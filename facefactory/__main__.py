"""What the processes of a chain run: `python -m facefactory stages FOLDER STAGE…`; see chain.process."""

import sys

from facefactory import chain, surroundings

if __name__ == "__main__":
    surroundings.speak_utf8()
    sys.exit(chain.process(sys.argv[1:]))
