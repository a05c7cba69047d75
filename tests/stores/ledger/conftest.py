"""An empty ledger of each kind, and more handles of the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from schemas.delivery import DeliveryLedger
from stores.ledger.open import open_ledger
from stores.ledger.sqlite_process import SqliteProcess


@pytest.fixture
def sqlite_uri(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return f"sqlite:{tmp_path}/ledger.db"


@pytest.fixture
def process_uri(sqlite_uri: str) -> str:
    """The same for a ledger process; `make_ledger` recognises its scheme."""
    return sqlite_uri.replace("sqlite:", "process:")


@pytest.fixture(params=["sqlite", "firestore", "process"])
def uri(request: pytest.FixtureRequest) -> str:
    """An empty ledger of each kind."""
    return str(request.getfixturevalue(f"{request.param}_uri"))


@pytest.fixture
def make_ledger(uri: str) -> Callable[[], DeliveryLedger]:
    """`make_ledger()`: one more handle of the ledger, not open."""
    kind, _, path = uri.partition(":")
    return partial(SqliteProcess, path) if kind == "process" else partial(open_ledger, uri)


@pytest.fixture
def connect(make_ledger: Callable[[], DeliveryLedger]) -> Iterator[Callable[[], DeliveryLedger]]:
    """`connect()`: one more open handle of the ledger."""
    with ExitStack() as stack:

        def another() -> DeliveryLedger:
            opened = make_ledger()
            opened.open()
            stack.callback(opened.close)
            return opened

        yield another


@pytest.fixture
def ledger(connect: Callable[[], DeliveryLedger]) -> DeliveryLedger:
    """An open, empty ledger."""
    return connect()
