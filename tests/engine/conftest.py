"""What the tests of engines share: a vendor, a Kafka topic, a bucket of the Cloud Storage stand-in, the
sample and what comes of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cloud import HIDDEN, Bucket, bucket
from support.factories import SECRET
from support.matrix import Answer, answer, make_sample
from support.secret_manager import secret_manager
from support.servers import needed

from connectors.kafka.client import KafkaClient, create_topic
from connectors.uri import KafkaUri
from runners.sandbox.process import Sandbox, running_sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A vendor of its own."""
    with running_sandbox() as made:
        yield made


@pytest.fixture
def uri(kafka_host: str) -> KafkaUri:
    """A fresh Kafka topic of two partitions."""
    made = KafkaUri((kafka_host,), f"t-{uuid.uuid4().hex}")
    assert create_topic(made, KafkaClient(), partitions=2, replicas=1)
    return made


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket, and a project with our secrets; the tests that need it are skipped without the stand-in, and fail in CI."""
    with needed(bucket(tmp_path_factory.mktemp("copies"))) as made, secret_manager() as secrets:
        secrets.update(SANDBOX_KEY=HIDDEN, CAMPAIGNS_CODE_SECRET=SECRET)
        yield made


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
