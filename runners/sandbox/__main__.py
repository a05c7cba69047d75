"""`python -m runners.sandbox`."""

import sys

from runners.sandbox.command import main

if __name__ == "__main__":
    sys.exit(main())
