"""Find, check and open the ledger of a delivery."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from pipelines.launch.options import read_uri
from pipelines.operations.ledger.guard import check_identity, check_open, find_ledger, find_traces, sqlite_path
from schemas.delivery import DeliveryLedger
from schemas.problems import InputError, Problem
from stores.dead_letters import write_dead_letters
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.receipts import write_receipts
from stores.ledger.identity import read_identity
from stores.ledger.open import connected_ledger, open_ledger
from transforms.delivery.record_receipts import WriteLetters, WriteReceipts


def read_ledger_uri(output: str, uri: str | None) -> str:
    """The URI given, or that of the ledger in the output folder. Raises InputError for one that cannot be read."""
    uri, problems = uri or DeliveryFolder(output).ledger, list[Problem]()
    if read_uri(open_ledger, uri, problems, "--ledger") is None:
        raise InputError(problems)
    return uri


@contextmanager
def opened_ledger(output: str, uri: str | None) -> Iterator[DeliveryLedger]:
    """The ledger of the delivery in `output`, open; one that is not there is not made. Raises InputError for one that
    is missing, empty, damaged, another than the delivery's, or older."""
    uri, folder = read_ledger_uri(output, uri), DeliveryFolder(output)
    if not check_identity(folder, uri, find_traces(folder)):
        raise _not_there(uri)
    with existing_ledger(uri) as ledger:
        check_open(folder, uri, ledger)
        yield ledger


@contextmanager
def existing_ledger(uri: str) -> Iterator[DeliveryLedger]:
    """A ledger, open, of whatever delivery; one that is not there is not made. Raises InputError for one that is
    missing, empty or damaged."""
    found = find_ledger(uri)
    if found is not None and found.state != "ledger":
        raise _not_there(uri)
    with connected_ledger(uri) as ledger:
        if read_identity(ledger) is None and not any(ledger.counts(int(time.time() * 1000)).values()):
            raise _not_there(uri)
        yield ledger


def receipt_writers(folder: DeliveryFolder) -> tuple[WriteReceipts, WriteLetters]:
    """The functions that write receipts and dead letters into the folder of a delivery."""
    return partial(write_receipts, folder.receipts), partial(write_dead_letters, folder.dead_letters)


def _not_there(uri: str) -> InputError:
    fix = "is not there, or is empty; give the --output of the delivery, or its --ledger if its command named one"
    return InputError([Problem("command line", "--ledger", sqlite_path(uri) or uri, fix)])
