"""Factories that rebatch's steps call on a worker: the ledger, the dispatcher, the disks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from connectors.gcs import is_remote
from connectors.vendors.open import make_vendor
from pipelines.command_line.logs import say
from pipelines.operations.ledger.guard import check_open, guard_ledger, note_beat, sqlite_path
from pipelines.operations.ledger.opened import receipt_writers
from pipelines.rebatch.options import RebatchConfig
from pipelines.rebatch.settings import Settings
from schemas.contracts import DeadLetter
from schemas.delivery import DeliveryLedger, ledger_steps
from schemas.problems import InputError, JobError
from schemas.transport import Envelope
from stores.deliveries.call_journal import FileJournal
from stores.deliveries.call_recovery import recover, register_output
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.disk_buffer import DiskBuffer
from stores.deliveries.spool import Spool
from stores.ledger.open import connected_ledger, open_ledger
from stores.ledger.sqlite import SqliteLedger
from stores.ledger.sqlite_process import SqliteProcess
from stores.local.disk_space import DiskSpace
from transforms.delivery.decode_events import dead_id, read_envelope
from transforms.delivery.deliver_batches import Dispatcher
from transforms.delivery.dispatch import BatchDispatcher
from transforms.delivery.record_receipts import record_unreported


@cache
def make_ledger(uri: str) -> DeliveryLedger:
    """The ledger a URI names, one a process: its users write together. Open it before use; it ends with the process.
    SQLite works in a process of its own, since the threads of this one would slow it down."""
    ledger = open_ledger(uri)
    return SqliteProcess(uri.partition(":")[2]) if isinstance(ledger, SqliteLedger) else ledger


@cache
def make_disk(output: str, ledger: str) -> DiskSpace:
    """The disks of a delivery's output folder and of its ledger, one object a process."""
    path = sqlite_path(ledger)
    folders = [] if is_remote(output) else [Path(output).absolute()]
    folders += [Path(path).absolute().parent] if path else []
    return DiskSpace(folders, on_short=DeliveryFolder(output).ask_to_stop)


@cache
def make_buffer(output: str) -> DiskBuffer:
    """The disk buffer of a delivery's output folder, one object a process."""
    return DiskBuffer(DeliveryFolder(output).waiting)


def prepare_stores(config: RebatchConfig) -> None:
    """Reserves room on the disks, and checks that the ledger is the delivery's newest. Raises InputError for another
    ledger, JobError when there is no room."""
    make_disk(config.output, config.ledger).prepare()
    guard_ledger(config.output, config.ledger)


def check_disk(config: RebatchConfig) -> None:
    """Raises JobError, which says how much to free, when the run was ended because a disk is nearly full."""
    make_disk(config.output, config.ledger).check()


def make_dispatcher(config: RebatchConfig, settings: Settings) -> Dispatcher:
    """The dispatcher of a worker process."""
    vendor, enough = make_vendor(settings.delivery().vendor), make_disk(config.output, config.ledger).enough
    if is_remote(config.output):
        return BatchDispatcher(vendor, make_ledger(config.ledger), settings, time.time, None, enough)
    journals = DeliveryFolder(config.output).journals
    return BatchDispatcher(
        vendor,
        make_ledger(config.ledger),
        settings,
        time.time,
        FileJournal(journals),
        enough,
        lambda ledger: recover(journals, ledger, int(time.time() * 1000)),
    )


def recover_calls(config: RebatchConfig) -> None:
    """Settles and releases in the ledger the calls of dead processes, from their journals; prints how many. Notes in
    the ledger where this delivery's journals are."""
    folder = DeliveryFolder(config.output)
    with connected_ledger(config.ledger) as ledger:
        register_output(ledger, folder.root)
        recovered = recover(folder.journals, ledger, int(time.time() * 1000))
    if any(recovered):
        say(
            f"an earlier run was killed: {recovered.settled:,} of its events had an answer and are settled, "
            f"{recovered.released:,} were in no call and are released, {recovered.in_doubt:,} were in calls without an "
            "answer: `on_unknown` decides when their leases end"
        )


def sweep(config: RebatchConfig, until: float | None = None) -> int:
    """Recovers the calls of dead workers, writes the receipts that were settled before a time (epoch seconds; now) and
    not written, and deletes the spool's files of which every message is settled; the number of files."""
    folder, until = DeliveryFolder(config.output), time.time() if until is None else until
    if (path := sqlite_path(config.ledger)) and not Path(path).is_file():
        folder.ask_to_stop()
        todo = "Put it back with its -wal file, or make one from the receipts: campaigns ledger rebuild OUTPUT"
        raise JobError(f"The ledger {path} has gone while the job ran", todo)
    with connected_ledger(config.ledger) as ledger:
        try:
            check_open(folder, config.ledger, ledger)
        except InputError as error:
            folder.ask_to_stop()
            (problem,) = error.problems
            happened = f"The job stops because of its ledger: {problem.file} {problem.value}"
            raise JobError(happened, problem.fix) from error
        recover(folder.journals, ledger, int(time.time() * 1000))
        record_unreported(ledger, *receipt_writers(folder), until, time.time())
        note_beat(folder, config.ledger, ledger)
        return Spool(folder.spool).sweep(lambda envelopes: _settled(ledger, envelopes), until)


def _settled(ledger: DeliveryLedger, envelopes: Sequence[Envelope]) -> bool:
    names = set()
    for envelope in envelopes:
        item = read_envelope(envelope, 0)
        names.add(dead_id(item) if isinstance(item, DeadLetter) else item.event_id)
    return all(len(ledger.find(step)) == len(step) for step in ledger_steps(sorted(names)))
