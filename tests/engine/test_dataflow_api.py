"""A job's life on Dataflow, against a server that speaks its API: submitted, looked at, updated, drained, cancelled."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from support.cloud import PROJECT, SUBSCRIPTION, Bucket, rebatch_argv, run_here
from support.dataflow_service import Service, dataflow_service
from support.delivering import Delivery
from support.launching import Place, any_place

from pipelines.launch import driver as launch
from pipelines.launch.storage import LaunchStorage
from pipelines.rebatch import driver as rebatch
from runners.cli.main import main

pytestmark = pytest.mark.engine


@pytest.fixture
def service() -> Iterator[Service]:
    with dataflow_service() as made:
        yield made


@pytest.fixture
def submit(cloud: Bucket, service: Service, tmp_path: Path) -> Callable[..., int]:
    """`submit(name, *more)`: the exit code of rebatch, handed to the service."""
    made = Delivery(tmp_path, source=f"pubsub:{SUBSCRIPTION}").configure()
    cloud.put(made.campaigns, "campaigns")
    return lambda name, *more: rebatch.run(rebatch_argv(cloud, *cloud.submitted(name, service.endpoint, *more)))


@pytest.fixture
def gcloud(service: Service, tmp_path: Path) -> Callable[[str], str]:
    """Runs a command of gcloud against the service."""
    if shutil.which("gcloud") is None:
        if os.environ.get("CAMPAIGNS_ENGINE_TESTS") == "1":
            pytest.fail("no gcloud; install the Google Cloud SDK")
        pytest.skip("skipped: needs gcloud, install the Google Cloud SDK")
    told = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": f"{service.endpoint}/", "CLOUDSDK_CONFIG": str(tmp_path),
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "1", "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}  # fmt: skip

    def run(command: str) -> str:
        done = subprocess.run(shlex.split(command), env={**os.environ, **told}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_submitted_job_is_described_drained_and_cancelled_by_the_commands_it_tells(
    submit: Callable[..., int],
    service: Service,
    gcloud: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = []
    for name in ("one", "two"):
        assert submit(name) == 0
        said = capsys.readouterr()
        assert "There is no journal of calls with --output gs://" in said.err
        told = dict(line.split(maxsplit=1) for line in said.out.splitlines())
        assert told["page"].endswith(f"/dataflow/jobs/europe-west1/{told['job']}?project={PROJECT}")
        commands.append(told)
    one, two = commands
    assert "currentState: JOB_STATE_RUNNING" in gcloud(one["status"])
    gcloud(one["drain"])
    assert service.jobs[one["job"]]["currentState"] == "JOB_STATE_DRAINING"
    assert "currentState: JOB_STATE_DRAINED" in gcloud(one["status"])
    gcloud(two["cancel"])
    assert "currentState: JOB_STATE_CANCELLED" in gcloud(two["status"])
    assert [service.jobs[told["job"]]["asked"] for told in commands] == [["JOB_STATE_DRAINED"], ["JOB_STATE_CANCELLED"]]


def test_an_update_takes_the_running_jobs_place_and_a_second_job_of_its_name_is_refused(
    submit: Callable[..., int], service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit("delivery", "--update") == 1
    assert "no job named delivery runs" in capsys.readouterr().err
    assert submit("delivery") == 0
    assert submit("delivery") == 1
    assert "already active job named delivery" in capsys.readouterr().err
    assert submit("delivery", "--update", '--transform_name_mapping={"Old": "Decode"}') == 0
    first, second = service.jobs.values()
    assert (first["currentState"], second["replaceJobId"]) == ("JOB_STATE_UPDATED", first["id"])
    assert second["transformNameMapping"] == {"Old": "Decode"}


def test_what_google_refuses_is_told_with_what_to_do(
    submit: Callable[..., int], service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.refuses = 403, "Dataflow API has not been used in project project-1 before or it is disabled."
    assert submit("refused") == 1
    told = capsys.readouterr().err
    assert "Dataflow API has not been used" in told
    assert "docs/dataflow.md" in told
    assert "Traceback" not in told


@pytest.fixture
def run_job(cloud: Bucket) -> Callable[[dict[str, Any]], str]:
    """Runs a job of the service on this machine; its end state."""

    def run(job: dict[str, Any]) -> str:
        address = str(job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"])
        return f"JOB_STATE_{run_here(proto.Pipeline.FromString(cloud.read(address.removeprefix(f'{cloud.uri}/'))))}"

    return run


def launch_argv(place: Place, cloud: Bucket, service: Service, name: str) -> list[str]:
    """The options of a launch on Dataflow, whose customers are in the bucket."""
    customers = cloud.put(place.root / "customers.parquet", f"{name}/people/customers.parquet")
    options = [option for option in cloud.submitted("x", service.endpoint) if not option.startswith("--job_name")]
    return [f"--campaigns={place.root / 'campaigns'}", f"--customers={customers}", f"--launch_id={name}",
            f"--events=file:{cloud.uri}/{name}/sent", f"--output={cloud.uri}/{name}/out",
            f"--secrets=projects/{PROJECT}", *options]  # fmt: skip


def test_a_launch_waits_for_its_job_and_goes_on_after_one_that_failed(
    cloud: Bucket,
    service: Service,
    run_job: Callable[[dict[str, Any]], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = launch_argv(any_place(tmp_path, customers=100), cloud, service, "spring")
    service.runs = lambda job: "JOB_STATE_FAILED"
    assert launch.run(argv) == 1
    printed = capsys.readouterr()
    assert "The workflow failed" in printed.err
    assert "run the same command again" in printed.err
    service.runs = run_job
    assert launch.run(argv) == 0
    assert "launch spring: 100 customers" in capsys.readouterr().out
    assert [job["name"] for job in service.jobs.values()] == ["launch-spring"] * 2
    assert main(["check", f"{cloud.uri}/spring/out"]) == 0


SEQUENCE = ["download", "prepare_launch", "check_resumed", "survey", "upload_inputs", "build", "download",
            "finalize_launch", "upload_results"]  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of the driver, in their order."""
    names: list[str] = []

    def recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            names.append(name)
            return function(*args, **options)

        return call

    for name in set(SEQUENCE) & set(vars(launch)):
        monkeypatch.setattr(launch, name, recorded(name, vars(launch)[name]))
    for name in set(SEQUENCE) & set(vars(LaunchStorage)):
        monkeypatch.setattr(LaunchStorage, name, recorded(name, vars(LaunchStorage)[name]))
    return names


def test_a_launch_takes_the_same_steps_on_this_machine_and_on_dataflow(
    cloud: Bucket, service: Service, run_job: Callable[[dict[str, Any]], str], calls: list[str], tmp_path: Path
) -> None:
    place = any_place(tmp_path, customers=100)
    assert place.launch() == 0
    assert calls == SEQUENCE
    calls.clear()
    service.runs = run_job
    assert launch.run(launch_argv(place, cloud, service, "steps")) == 0
    assert calls == SEQUENCE
