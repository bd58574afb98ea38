"""``python -m fpmtools``."""

import sys

from fpmtools.cli import main

if __name__ == "__main__":
    sys.exit(main())
