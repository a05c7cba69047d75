"""The ledger of a delivery, for the commands: found, checked and opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.ledger.guard import check_identity, find_traces, sqlite_path
from schemas.delivery import DeliveryLedger
from schemas.problems import InputError, Problem
from stores.delivery_folder import DeliveryFolder
from stores.ledger.open import LedgerUriError, open_ledger


def read_ledger_uri(output: str, uri: str | None) -> str:
    """The URI given, or that of the ledger in the output folder. Raises InputError for one that cannot be read."""
    uri = uri or DeliveryFolder(output).ledger
    try:
        open_ledger(uri)
    except LedgerUriError as error:
        raise InputError([Problem("command line", "--ledger", uri, str(error))]) from None
    return uri


@contextmanager
def opened_ledger(output: str, uri: str | None) -> Iterator[DeliveryLedger]:
    """The ledger, open; one that is not there is not made. Raises InputError for one that is missing, empty, damaged,
    another than the delivery's, or older."""
    uri, folder = read_ledger_uri(output, uri), DeliveryFolder(output)
    if not check_identity(folder, uri, find_traces(folder)):
        fix = "is not there; give the --output of the delivery, or its --ledger if its command named one"
        raise InputError([Problem("command line", "--ledger", sqlite_path(uri) or uri, fix)])
    ledger = open_ledger(uri)
    ledger.open()
    try:
        yield ledger
    finally:
        ledger.close()
