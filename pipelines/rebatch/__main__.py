"""python -m pipelines.rebatch."""

import sys

from pipelines.rebatch.pipeline import run

if __name__ == "__main__":
    sys.exit(run(exits=True))
