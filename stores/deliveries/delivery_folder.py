"""The folder of a delivery: receipts, dead letters, the spool, and the stop file that ends a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from connectors.files.whole_file import write_whole
from schemas.problems import InputError, JobError, Problem
from stores.launches.launch_folder import lock_file

_WRITTEN = ("receipts", "dead_letters", "outbox")


class LedgerCopy(msgspec.Struct, frozen=True):
    """The content of ledger.json: the ledger's URI, and its id and beat (stores/ledger/identity.py) at the writing."""

    ledger: str
    id: str
    beat: int


class DeliveryFolder:
    """The paths of a delivery below its --output. What workers write may be gs://; the spool, the lock, the stop file
    and the summary are of a job on this machine."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        above = str(root).rstrip("/")
        self.receipts, self.dead_letters, self.outbox = (f"{above}/{name}" for name in _WRITTEN)
        self.ledger = f"sqlite:{above}/ledger.db"  # unless the command names another
        self.spool = self.root / "spool"
        self.journals = self.root / "calls"
        self.waiting = self.root / "waiting"  # of a drain in rounds, while it runs
        self.ledger_copy = self.root / "ledger.json"
        self._stop = self.root / "stop"

    def prepare(self) -> None:
        """Make the folders. Raises JobError when they cannot be written."""
        try:
            for folder in (self.receipts, self.dead_letters, self.spool):
                Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            happened = f"{self.root} cannot be used ({error.strerror or error})"
            raise JobError(happened, "Choose an --output that this account may write to") from error

    def ask_to_stop(self) -> None:
        """Ask the running job to stop: its sources end, and what they read is delivered."""
        self._stop.touch()

    def must_stop(self) -> bool:
        """Whether the job was asked to stop."""
        return self._stop.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for one job and delete an old stop file. Raises JobError while another job runs."""
        message = f"another rebatch runs in {self.root}; stop it first, or give this one an --output of its own"
        with lock_file(self.root / "lock", message):
            self._stop.unlink(missing_ok=True)
            yield

    def read_ledger_copy(self) -> LedgerCopy | None:
        """The ledger of this delivery, or None before its first run. Raises InputError for a damaged file."""
        try:
            return msgspec.json.decode(self.ledger_copy.read_bytes(), type=LedgerCopy)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            fix = (
                f"cannot be read ({error}); restore it from a backup. Delete it only if you are sure that the ledger "
                "is the newest of this delivery"
            )
            raise InputError([Problem(str(self.ledger_copy), "", "damaged", fix)]) from error

    def write_ledger_copy(self, copy: LedgerCopy) -> None:
        """Write the ledger of this delivery. Raises JobError when it cannot be written."""
        write_whole(self.ledger_copy, [msgspec.json.encode(copy), b"\n"])

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        write_whole(self.root / "summary.json", [(json.dumps(summary, indent=2) + "\n").encode()])
