"""The sandbox of a module, forgetful between tests, and dispatchers that send to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dispatching import Job, jobs

from runners.sandbox.process import Sandbox, running_sandbox


@pytest.fixture(scope="module")
def _running() -> Iterator[Sandbox]:
    with running_sandbox() as made:
        yield made


@pytest.fixture
def sandbox(_running: Sandbox) -> Sandbox:
    """A running sandbox that was never called."""
    _running.script([])
    _running.reset()
    return _running


@pytest.fixture
def another(sandbox: Sandbox, tmp_path: Path) -> Iterator[Callable[[], Job]]:
    """`another()`: a dispatcher of its own over the test's ledger file."""
    with jobs(sandbox, tmp_path) as made:
        yield made


@pytest.fixture
def job(another: Callable[[], Job]) -> Job:
    """A dispatcher with an empty ledger."""
    return another()
