"""Write the golden bytes of a new version of an event type: `python -m support.golden_events NAME VERSION` (in tests/).

Never write those of a released version again: they show that its old events can still be read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from support.raw_events import TYPES, any_event, body_of

GOLDEN = Path(__file__).parents[1] / "golden" / "events"


def write(name: str, version: int) -> None:
    """Write the files of one version. Raises FileExistsError if they are there."""
    row = any_event(name, version)
    (GOLDEN / f"{name}_{version}.hex").open("x").write(body_of(TYPES[name], row).hex() + "\n")
    (GOLDEN / f"{name}_{version}.json").open("x").write(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
