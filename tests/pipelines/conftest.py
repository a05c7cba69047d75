"""What the tests of deliveries share: Beam's own engine for what ends by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.delivering import KEY


@pytest.fixture(params=["sqlite", "firestore"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """No ledger yet, of each kind."""
    return f"sqlite:{tmp_path}/ledger.db" if request.param == "sqlite" else request.getfixturevalue("firestore_uri")


@pytest.fixture
def built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends by itself runs on Beam's own engine; the sandbox has a key."""
    monkeypatch.setenv("CAMPAIGNS_PRISM", "/none")
    monkeypatch.setenv("SANDBOX_KEY", KEY["SANDBOX_KEY"])
