"""What the tests of engines share: a bucket of the Cloud Storage stand-in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cloud import HIDDEN, Bucket, bucket
from factories import SECRET
from secret_manager import secret_manager

from runners.emulators import EmulatorError


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket, and a project with our secrets; the tests that need it are skipped without the stand-in, and fail in CI."""
    try:
        with bucket(tmp_path_factory.mktemp("copies")) as made, secret_manager() as secrets:
            secrets.update(SANDBOX_KEY=HIDDEN, CAMPAIGNS_CODE_SECRET=SECRET)
            yield made
    except EmulatorError as error:
        if os.environ.get("CAMPAIGNS_ENGINE_TESTS") == "1":
            pytest.fail(str(error))
        pytest.skip(f"skipped: {error}")
