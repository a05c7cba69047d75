"""python -m pipelines.features."""

import sys

from pipelines.features.driver import run

if __name__ == "__main__":
    sys.exit(run(exits=True))
