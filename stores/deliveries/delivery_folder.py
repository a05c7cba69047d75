"""The folder of a delivery: receipts, dead letters, the spool, and the signs by which a run is told to stop."""

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
    """What ledger.json says of the delivery's ledger: its URI, and its id and beat (stores/ledger/identity.py) as they
    were when the file was written."""

    ledger: str
    id: str
    beat: int


class DeliveryFolder:
    """Where everything of a delivery stands below its --output. What workers write may be gs://; the spool, the lock,
    the signs and the summary are of a job that runs on this machine."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        above = str(root).rstrip("/")
        self.receipts, self.dead_letters, self.outbox = (f"{above}/{one}" for one in _WRITTEN)
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
        """Every source of the running job ends; what it read is delivered."""
        self._stop.touch()

    def must_stop(self) -> bool:
        """Whether somebody asked."""
        return self._stop.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One job a folder: its spool is its own. An old stop sign goes. Raises JobError while another runs."""
        told = f"another rebatch runs in {self.root}; stop it first, or give this one an --output of its own"
        with lock_file(self.root / "lock", told):
            self._stop.unlink(missing_ok=True)
            yield

    def read_ledger_copy(self) -> LedgerCopy | None:
        """Which ledger this delivery has, or None before its first run. Raises InputError for a damaged file."""
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
        """Which ledger this delivery has. Raises JobError when it cannot be written."""
        write_whole(self.ledger_copy, [msgspec.json.encode(copy), b"\n"])

    def write_summary(self, summary: dict[str, Any]) -> None:
        """summary.json of the last run."""
        write_whole(self.root / "summary.json", [(json.dumps(summary, indent=2) + "\n").encode()])
