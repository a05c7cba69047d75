"""Start one Python SDK worker of Flink's worker pool, as the boot program of Beam's container does.

BOOT --id=ID --logging_endpoint=… --artifact_endpoint=… --provision_endpoint=… --control_endpoint=…
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile

import grpc
from apache_beam.portability.api import (
    beam_fn_api_pb2,  # noqa: F401 first, or endpoints_pb2 is not found
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format

_PATIENCE_S = 60


def environment(arguments: argparse.Namespace, info: beam_provision_api_pb2.ProvisionInfo) -> dict[str, str]:
    """The variables of a worker: its id, the services that it calls and the job's options."""
    describe = lambda url: text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url))  # noqa: E731
    return {
        "WORKER_ID": arguments.id,
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "LOGGING_API_SERVICE_DESCRIPTOR": describe(info.logging_endpoint.url or arguments.logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": describe(info.control_endpoint.url or arguments.control_endpoint),
        "STATUS_API_SERVICE_DESCRIPTOR": "",
        "SEMI_PERSISTENT_DIRECTORY": tempfile.gettempdir(),
    }


def main() -> None:
    """Ask the provision service about the job, then become the worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("id", "logging_endpoint", "artifact_endpoint", "provision_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", default="")
    arguments, _ = parser.parse_known_args()
    with grpc.insecure_channel(arguments.provision_endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = stub.GetProvisionInfo(request, metadata=[("worker_id", arguments.id)], timeout=_PATIENCE_S).info
    variables = {**os.environ, **environment(arguments, info)}
    os.dup2(2, 1)  # nobody reads the pool's pipe: a worker that prints would stop when it is full
    os.execve(sys.executable, [sys.executable, "-m", "runners.local.flink.worker"], variables)


if __name__ == "__main__":
    main()
