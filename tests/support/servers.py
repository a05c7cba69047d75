"""Servers that tests need: with one missing a test is skipped and says what to install, and in CI it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NoReturn, TypeVar

import pytest

from runners.local.emulators import EmulatorError

T = TypeVar("T")


def missing(told: str) -> NoReturn:
    """Skips the test, and fails it in CI."""
    if os.environ.get("CAMPAIGNS_ENGINE_TESTS") == "1":
        pytest.fail(told)
    pytest.skip(f"skipped: {told}")


@contextmanager
def needed(server: AbstractContextManager[T]) -> Iterator[T]:
    """What a server gives, while it runs."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server)
        except EmulatorError as error:
            missing(str(error))
        yield running
