"""python -m bench.input_fuzz: whole inputs, good and bad, through the command line."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from bench.input_fuzz.hunt import fuzz


def main() -> int:
    """0 when every run ended as it must."""
    parser = argparse.ArgumentParser(description="Whole inputs, good and bad, through the command line.")
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--from", type=int, default=0, dest="first", help="number of the first inputs of the seed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, help="folder for the inputs that went wrong (a new one in the temporary folder)"
    )
    args = parser.parse_args()
    print(f"seed {args.seed}", file=sys.stderr, flush=True)
    found = fuzz(
        args.examples, args.seed, first=args.first, seconds=args.seconds, workers=args.workers, keep=args.keep,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(json.dumps(found, indent=2))
    return 1 if found["finds"] else 0


if __name__ == "__main__":
    sys.exit(main())
