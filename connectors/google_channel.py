"""The gRPC channel to a Google service, or to its emulator."""

from __future__ import annotations

import os
from collections.abc import Iterable

import google.auth
import grpc
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.grpc import secure_authorized_channel
from google.auth.transport.requests import Request

from schemas.problems import JobError

# gRPC waits up to two minutes between attempts to connect: longer than our own deadlines.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2_000)]


def open_google_channel(service: str, scope: str, options: Iterable[tuple[str, int]] = ()) -> grpc.Channel:
    """A channel to a service such as pubsub, or to the emulator that PUBSUB_EMULATOR_HOST names; it connects when it is
    first used. Raises JobError when there are no Google credentials."""
    variable, options = f"{service.upper()}_EMULATOR_HOST", [*_RECONNECT, *options]
    if emulator := os.environ.get(variable):
        return grpc.insecure_channel(emulator, options=options)
    try:
        credentials, _ = google.auth.default(scopes=[f"https://www.googleapis.com/auth/{scope}"])
    except GoogleAuthError as error:
        todo = f"Run `gcloud auth application-default login`, or set {variable} for an emulator"
        raise JobError(f"No Google credentials ({error})", todo) from error
    return secure_authorized_channel(credentials, Request(), f"{service}.googleapis.com:443", options=options)
