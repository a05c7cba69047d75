"""Secrets by the names of environment variables: from the environment, or from a project's Secret Manager.

Workers in the cloud have no environment of ours. There a secret is a secret of Secret Manager with the variable's name.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth.exceptions import GoogleAuthError

from schemas.problems import JobError

KEEP_S = 600.0
"""Seconds for which a secret is cached; after them a new version is in use."""
PROJECT = re.compile(r"projects/([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")


@dataclass
class Secrets:
    """Looks up a variable's value, "" if it has none: in the environment, then in Secret Manager of `project`
    (projects/P). Without `environment`, as on workers in the cloud, only in Secret Manager.

    A pickled copy holds no values.
    """

    project: str | None = None
    environment: bool = True
    _kept: dict[str, tuple[float, str]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"project": self.project, "environment": self.environment, "_kept": {}}

    def __call__(self, name: str) -> str:
        """The value without blanks around it. Raises JobError when Secret Manager refuses to answer."""
        value = os.environ.get(name, "").strip() if self.environment else ""
        if value or self.project is None:
            return value
        at, kept = self._kept.get(name, (float("-inf"), ""))
        if time.monotonic() - at > KEEP_S:
            kept = _latest(f"{self.project}/secrets/{name}/versions/latest")
            self._kept[name] = time.monotonic(), kept
        return kept

    def todo(self, name: str) -> str:
        """What to do when there is no value."""
        if self.project is None:
            return f"set the environment variable {name}, on every worker"
        fix = f"make the secret {name} in Secret Manager of {self.project}"
        return f"{fix}, or set the environment variable {name}" if self.environment else fix


def _latest(version: str) -> str:
    try:
        return str(_client().access_secret_version(name=version, timeout=20.0).payload.data.decode()).strip()
    except NotFound:
        return ""
    except (GoogleAPICallError, GoogleAuthError) as error:
        todo = "Enable the Secret Manager API and give this account the role Secret Manager Secret Accessor"
        raise JobError(f"{version} cannot be read ({type(error).__name__})", todo) from error


def _client() -> Any:
    """The client; SECRET_MANAGER_HOST (host:port, without encryption) is for tests."""
    import grpc
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceGrpcTransport,
    )

    if host := os.environ.get("SECRET_MANAGER_HOST"):
        transport = SecretManagerServiceGrpcTransport(channel=grpc.insecure_channel(host))
        return SecretManagerServiceClient(transport=transport)
    return SecretManagerServiceClient()
