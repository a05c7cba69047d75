"""Notes until when a reader's leases of a subscription may last, for the run that follows a killed one."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

from connectors.files.whole_file import write_whole


class LeaseFile:
    """The file of one reader of a subscription: until when (epoch seconds) its leases may last. `earlier` is the latest
    time of the readers of earlier runs.

    A running reader moves its time forward before it takes or extends a lease. A reader that closes, and has given back
    the messages that it did not acknowledge, clears it. So after a kill -9 the time bounds the leases that nobody ends.
    """

    def __init__(self, folder: Path, subscription: str, index: int = 0, earlier: float = 0.0) -> None:
        self._path = folder / f"{_name(subscription)}-{index}.leases"
        self._subscription, self.earlier = subscription, earlier

    def hold(self, until: float) -> None:
        """Leases may last until then. Raises JobError when it cannot be written."""
        content = {"subscription": self._subscription, "leased_until": round(until, 1)}
        write_whole(str(self._path), [json.dumps(content).encode()])


def leased_until(folder: Path, subscription: str) -> float:
    """The latest time that the readers of a subscription left in a folder; 0 if none did."""
    return max((_read(path) for path in folder.glob(f"{_name(subscription)}-*.leases")), default=0.0)


def _name(subscription: str) -> str:
    return blake2b(subscription.encode(), digest_size=8).hexdigest()


def _read(path: Path) -> float:
    try:
        return float(json.loads(path.read_bytes())["leased_until"])
    except (OSError, ValueError, KeyError, TypeError):  # ours are written whole
        return 0.0
