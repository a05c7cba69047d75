"""What the tests of engines share: a bucket of the Cloud Storage stand-in, the sample and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud import HIDDEN, Bucket, bucket
from factories import SECRET
from matrix import Answer, answer, make_sample
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


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's campaigns and customers."""
    return make_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def expected(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """What the built-in engine makes of the sample in files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
        return answer(sample, tmp_path_factory.mktemp("expected"), "file", ["--on=direct"], "")


@pytest.fixture
def everywhere(pubsub_host: str, prism_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that every engine and transport of the matrix needs."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_host)
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
