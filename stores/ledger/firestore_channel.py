"""The gRPC channel to Firestore: Google's, or the emulator of FIRESTORE_EMULATOR_HOST."""

from __future__ import annotations

import os

import google.auth
import grpc
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.grpc import secure_authorized_channel
from google.auth.transport.requests import Request

from schemas.problems import JobError

HOST = "firestore.googleapis.com:443"
SCOPES = ["https://www.googleapis.com/auth/datastore"]
# gRPC waits up to two minutes between attempts to connect: longer than our own deadline.
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2_000)]


def open_channel() -> grpc.Channel:
    """A channel that connects when it is first used. Raises JobError when there are no Google credentials."""
    emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
    if emulator:
        return grpc.insecure_channel(emulator, options=_OPTIONS)
    try:
        credentials, _ = google.auth.default(scopes=SCOPES)
    except GoogleAuthError as error:
        todo = "Run `gcloud auth application-default login`, or set FIRESTORE_EMULATOR_HOST for an emulator"
        raise JobError(f"No Google credentials ({error})", todo) from error
    return secure_authorized_channel(credentials, Request(), HOST, options=_OPTIONS)
