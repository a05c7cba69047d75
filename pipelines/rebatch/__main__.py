"""python -m pipelines.rebatch."""

import sys

from pipelines.rebatch.driver import run

if __name__ == "__main__":
    sys.exit(run(exits=True))
