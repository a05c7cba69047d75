"""A sandbox that runs for the tests of a file, empty at the start of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runners.sandbox.process import Sandbox, running_sandbox


@pytest.fixture(scope="module")
def _running() -> Iterator[Sandbox]:
    with running_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_running: Sandbox) -> Sandbox:
    """The vendor, which has forgotten everything and fails at nothing."""
    _running.script([])
    _running.reset()
    return _running
