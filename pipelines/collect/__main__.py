"""python -m pipelines.collect."""

import sys

from pipelines.collect.driver import run

if __name__ == "__main__":
    sys.exit(run(exits=True))
