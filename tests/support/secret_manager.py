"""A server that speaks Secret Manager's call for the newest version of a secret."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from google.cloud.secretmanager_v1.types import AccessSecretVersionRequest, AccessSecretVersionResponse

PROJECT = "projects/project-1"


@contextmanager
def secret_manager() -> Iterator[dict[str, str]]:
    """The project's secrets by name, as long as the block lasts; one that is "denied" may not be read."""
    held: dict[str, str] = {}

    def access(request: AccessSecretVersionRequest, context: grpc.ServicerContext) -> AccessSecretVersionResponse:
        name = request.name.removeprefix(f"{PROJECT}/secrets/").removesuffix("/versions/latest")
        if name not in held:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such secret")
        if held[name] == "denied":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
        return AccessSecretVersionResponse(name=request.name, payload={"data": held[name].encode()})

    handler = grpc.unary_unary_rpc_method_handler(
        access, AccessSecretVersionRequest.deserialize, AccessSecretVersionResponse.serialize
    )
    server = grpc.server(ThreadPoolExecutor(2))
    service = "google.cloud.secretmanager.v1.SecretManagerService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"AccessSecretVersion": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_MANAGER_HOST", f"127.0.0.1:{port}")
        yield held
    server.stop(None)
