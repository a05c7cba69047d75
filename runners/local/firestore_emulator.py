"""A stand-in for Firestore on this machine: the emulator of the Google Cloud SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runners.local.emulators import Emulator, run

FIRESTORE = Emulator(
    "Firestore", "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar", "cloud-firestore-emulator",
    "FIRESTORE_EMULATOR_JAR", "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
)  # fmt: skip


@contextmanager
def firestore_emulator(port: int | None = None, wait_s: float = 60.0) -> Iterator[str]:
    """`host:port` of a running emulator, which ends with the block. It keeps all documents in memory.

    Raises EmulatorError when Java or the jar is missing or it does not answer within `wait_s` seconds.
    """
    with run(FIRESTORE, port, wait_s) as host:
        yield host
