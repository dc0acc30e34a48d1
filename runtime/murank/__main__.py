"""`python -m murank`."""

import sys

from murank.cli import main

if __name__ == "__main__":
    sys.exit(main())
