"""A ledger of each kind, empty, and more handles of the same one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from servers import needed

from runners.firestore_emulator import firestore_emulator
from schemas.delivery import DeliveryLedger
from stores.ledger.beside import LedgerBeside
from stores.ledger.open import open_ledger


@pytest.fixture(scope="session")
def firestore_host() -> Iterator[str]:
    """`host:port` of the emulator; the tests that need it are skipped without one, and fail in CI."""
    with needed(firestore_emulator()) as host:
        yield host


@pytest.fixture
def firestore_uri(firestore_host: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty collection; FIRESTORE_EMULATOR_HOST is set for the test."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
    return f"firestore:projects/project-1/databases/(default)/ledger-{uuid.uuid4().hex}"


@pytest.fixture
def sqlite_uri(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return f"sqlite:{tmp_path}/ledger.db"


@pytest.fixture
def beside_uri(sqlite_uri: str) -> str:
    """The same for a process beside; `make_ledger` knows it by its scheme."""
    return sqlite_uri.replace("sqlite:", "beside:")


@pytest.fixture(params=["sqlite", "firestore", "beside"])
def uri(request: pytest.FixtureRequest) -> str:
    """An empty ledger of each kind."""
    return str(request.getfixturevalue(f"{request.param}_uri"))


@pytest.fixture
def make_ledger(uri: str) -> Callable[[], DeliveryLedger]:
    """`make_ledger()`: one more handle of the ledger, not open."""
    kind, _, path = uri.partition(":")
    return partial(LedgerBeside, path) if kind == "beside" else partial(open_ledger, uri)


@pytest.fixture
def connect(make_ledger: Callable[[], DeliveryLedger]) -> Iterator[Callable[[], DeliveryLedger]]:
    """`connect()`: one more open handle of the ledger."""
    with ExitStack() as stack:

        def another() -> DeliveryLedger:
            made = make_ledger()
            made.open()
            stack.callback(made.close)
            return made

        yield another


@pytest.fixture
def ledger(connect: Callable[[], DeliveryLedger]) -> DeliveryLedger:
    """An open, empty ledger."""
    return connect()
