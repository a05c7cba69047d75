"""Finding the Pub/Sub emulator, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.local.emulators import PUBSUB, EmulatorError, pubsub_emulator


def test_a_named_jar_is_taken_and_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "emulator.jar"
    monkeypatch.setenv("PUBSUB_EMULATOR_JAR", str(jar))
    with pytest.raises(EmulatorError, match="is no file"):
        PUBSUB.find_jar()
    jar.write_bytes(b"")
    assert PUBSUB.find_jar() == jar


def test_the_jar_of_a_cloud_sdk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "platform" / "pubsub-emulator" / "lib" / "cloud-pubsub-emulator-0.8.20-all.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"")
    monkeypatch.delenv("PUBSUB_EMULATOR_JAR", raising=False)
    monkeypatch.setenv("CLOUDSDK_ROOT_DIR", str(tmp_path))
    assert PUBSUB.find_jar() == jar


def test_without_java_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmulatorError, match="gcloud components install pubsub-emulator"), pubsub_emulator():
        pass


def test_a_jar_that_is_no_emulator_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PUBSUB_EMULATOR_JAR", str(tmp_path / "java"))
    with pytest.raises(EmulatorError, match=r"does not answer on .*exit status 3"), pubsub_emulator():
        pass
