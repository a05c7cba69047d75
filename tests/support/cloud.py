"""Jobs for Dataflow in tests: the files in the bucket, and the graphs that Beam wrote for Dataflow."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from apache_beam.internal.gcp import auth
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from connectors import gcs as remote_folder
from runners.local.gcs_server import gcs_server

PROJECT = "project-1"
HIDDEN = "a-key-that-no-job-may-hold"
LEDGER = f"firestore:projects/{PROJECT}/databases/(default)/deliveries"
SUBSCRIPTION = f"projects/{PROJECT}/subscriptions/events"


@dataclass(frozen=True)
class Bucket:
    """A bucket of the Cloud Storage stand-in."""

    uri: str
    copies: Path

    def put(self, source: Path, below: str) -> str:
        """Upload a file or folder; its address."""
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        for path in files:
            name = below if source.is_file() else f"{below}/{path.relative_to(source).as_posix()}"
            with FileSystems.create(f"{self.uri}/{name}", "application/octet-stream") as file:
                file.write(path.read_bytes())
        return f"{self.uri}/{below}"

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        with FileSystems.open(f"{self.uri}/{name}", "application/octet-stream") as file:
            return bytes(file.read())

    def remove(self, name: str) -> None:
        """Delete a file; the stand-in does not know Beam's call, which deletes many."""
        address = f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/bucket/o/{quote(name, safe='')}"
        urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()

    def names(self, below: str) -> list[str]:
        """The names of the files below a folder."""
        (match,) = FileSystems.match([f"{self.uri}/{below}/**"])
        return sorted(entry.path.removeprefix(f"{self.uri}/") for entry in match.metadata_list)

    def dataflow(self, job: str, *more: str) -> list[str]:
        """Beam's options for a template of a job on Dataflow."""
        return [
            "--on=dataflow", f"--project={PROJECT}", "--region=europe-west1", "--no_auth",
            "--sdk_location=container", f"--temp_location={self.uri}/{job}/tmp", f"--job_name={job}",
            f"--staging_location={self.uri}/{job}/staging", f"--template_location={self.uri}/{job}/template.json", *more,
        ]  # fmt: skip

    def submitted(self, job: str, endpoint: str, *more: str) -> list[str]:
        """Beam's options for a job that is submitted to Dataflow."""
        options = [option for option in self.dataflow(job, *more) if not option.startswith("--template_location")]
        return [*options, f"--dataflow_endpoint={endpoint}"]

    def job(self, job: str) -> dict[str, Any]:
        """The template of a job."""
        return dict(json.loads(self.read(f"{job}/template.json")))

    def staged(self, job: str, ending: str) -> bytes:
        """The staged file of a job whose name has this ending."""
        (name,) = [name for name in self.names(f"{job}/staging") if name.endswith(ending)]
        return self.read(name)

    def pipeline(self, job: str) -> proto.Pipeline:
        """The graph that Dataflow would run."""
        return proto.Pipeline.FromString(self.staged(job, "pipeline.pb"))


def rebatch_argv(cloud: Bucket, *more: str) -> list[str]:
    """The options of rebatch for a job that reads and writes in the cloud."""
    return [f"--campaigns={cloud.uri}/campaigns", f"--events=pubsub:{SUBSCRIPTION}", f"--output={cloud.uri}/delivery",
            f"--ledger={LEDGER}", f"--secrets=projects/{PROJECT}", *more]  # fmt: skip


@contextmanager
def bucket(folder: Path) -> Iterator[Bucket]:
    """A bucket of a stand-in that ends with the block; copies of its folders are kept below `folder`.

    Beam is told at once that there are no credentials, which it would find out after 20 seconds.
    """
    with gcs_server() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setattr(auth._Credentials, "_credentials_init", True)
        patch.setattr(auth._Credentials, "_credentials", None)
        patch.setattr(remote_folder, "_ROOT", folder)
        FileSystems.set_options(PipelineOptions(["--no_auth"]))
        yield Bucket("gs://bucket", folder)


def run_here(pipeline: proto.Pipeline) -> str:
    """Run a graph that was made for Dataflow on the built-in engine; its end state."""
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    options = PipelineOptions(["--no_auth"])
    return str(FnApiRunner().run_via_runner_api(pipeline, options).wait_until_finish())


def steps(pipeline: proto.Pipeline) -> list[str]:
    """The labels of the steps that the pipeline file names, in order."""
    transforms = pipeline.components.transforms
    return [
        transforms[step].unique_name for root in pipeline.root_transform_ids for step in transforms[root].subtransforms
    ]


def leaves(pipeline: proto.Pipeline) -> dict[str, proto.PTransform]:
    """The transforms that are executed, by label."""
    return {leaf.unique_name: leaf for leaf in pipeline.components.transforms.values() if not leaf.subtransforms}


def states(step: proto.PTransform) -> tuple[set[str], set[str]]:
    """The names of the states and of the timers of a step."""
    payload = proto.ParDoPayload.FromString(step.spec.payload)
    return set(payload.state_specs), {name.removeprefix("ts-") for name in payload.timer_family_specs}
