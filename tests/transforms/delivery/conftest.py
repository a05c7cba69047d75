"""Dispatchers that send to the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.dispatching import Job, jobs

from runners.sandbox.process import Sandbox


@pytest.fixture
def another(sandbox: Sandbox, tmp_path: Path) -> Iterator[Callable[[], Job]]:
    """`another()`: a dispatcher of its own over the test's ledger file."""
    with jobs(sandbox, tmp_path) as made:
        yield made


@pytest.fixture
def job(another: Callable[[], Job]) -> Job:
    """A dispatcher with an empty ledger."""
    return another()
