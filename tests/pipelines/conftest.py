"""What the tests of deliveries share: a vendor, and Beam's own engine for what ends by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from delivering import KEY

from runners.sandbox.process import Sandbox, running_sandbox


@pytest.fixture(scope="module")
def _running() -> Iterator[Sandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_running: Sandbox) -> Sandbox:
    """A vendor that nothing was sent to."""
    _running.script([])
    _running.reset()
    return _running


@pytest.fixture(params=["sqlite", "firestore"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """No ledger yet, of each kind."""
    return f"sqlite:{tmp_path}/ledger.db" if request.param == "sqlite" else request.getfixturevalue("firestore_uri")


@pytest.fixture
def built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends by itself runs on Beam's own engine; the sandbox has a key."""
    monkeypatch.setenv("CAMPAIGNS_PRISM", "/none")
    monkeypatch.setenv("SANDBOX_KEY", KEY["SANDBOX_KEY"])
