"""python -m pipelines.launch."""

import sys

from pipelines.launch.driver import run

if __name__ == "__main__":
    sys.exit(run())
