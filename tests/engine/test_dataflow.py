"""Jobs for Dataflow as Beam's own builder writes them: the graph, the job, the package that workers install."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import fastavro
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from support.cloud import HIDDEN, PROJECT, SUBSCRIPTION, Bucket, leaves, rebatch_argv, run_here, states, steps
from support.delivering import Delivery
from support.launching import any_place

from pipelines.launch import driver as launch
from pipelines.rebatch import driver as rebatch
from runners.cli.flex_template import arguments
from runners.cli.main import main
from schemas.delivery import BATCH

pytestmark = pytest.mark.engine

# A job is updated while it runs only when its steps keep their names: a change here is one for the change log.
REBATCH = ["ReadEvents", "Decode", "GroupByRetailer", "DropRepeats", "HoldUntilDue", "BatchByRetailer",
           "DeliverBatches", "UnreportedReceipts", "Receipts", "RecordReceipts", "RecordDeadLetters"]  # fmt: skip
LAUNCH = ["ReadCustomers", "EvaluateAudience", "AssignVariants", "Suppress", "GenerateOffers", "BuildEvents",
          "PublishEvents", "RecordExposures"]  # fmt: skip
IMAGE = "europe-docker.pkg.dev/project-1/campaigns/rebatch:1"
BATCHES = "BatchByRetailer/GroupIntoBatches"
STATES = {
    "DropRepeats/Drop": ({"stamp", "ids"}, {"forget", "over"}),
    "HoldUntilDue/Hold": ({"waiting"}, {"due", "over"}),
    f"{BATCHES}/GroupIntoBatches/ParDo(_GroupIntoBatchesDoFn)": ({"values", "count"}, {"window_end", "buffering_end"}),
    "DeliverBatches/Wait": ({"waiting", "next"}, {"wake", "over"}),
}


@pytest.fixture(scope="module")
def built(cloud: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """The bucket with rebatch built for Dataflow: exactly once, at least once, and as a Flex Template's launcher does."""
    made = Delivery(tmp_path_factory.mktemp("delivery"), source=f"pubsub:{SUBSCRIPTION}").configure()
    cloud.put(made.campaigns, "campaigns")
    assert rebatch.run(rebatch_argv(cloud, *cloud.dataflow("first"))) == 0
    again = cloud.dataflow("second", "--dataflow_service_options=streaming_mode_at_least_once", "--max_num_workers=4")
    assert rebatch.run(rebatch_argv(cloud, *again)) == 0
    launcher = [one for one in cloud.dataflow("flex", "--ignore_times=true") if not one.startswith("--on")]
    assert rebatch.run(arguments(rebatch_argv(cloud, *launcher), {"CAMPAIGNS_IMAGE": IMAGE})) == 0
    return cloud


def test_the_events_come_from_dataflows_own_source_with_their_attributes(built: Bucket) -> None:
    (read,) = [one for one in leaves(built.pipeline("first")).values() if "pubsub" in one.spec.urn]
    assert read.unique_name == "ReadEvents/Messages/Read"
    assert read.spec.urn == common_urns.composites.PUBSUB_READ.urn
    payload = proto.PubSubReadPayload.FromString(read.spec.payload)
    assert (payload.subscription, payload.with_attributes, payload.id_attribute) == (SUBSCRIPTION, True, "")


def test_the_stateful_steps_have_their_states_and_timers(built: Bucket) -> None:
    pipeline = built.pipeline("first")
    found = {
        name: states(one) for name, one in leaves(pipeline).items() if one.spec.urn == common_urns.primitives.PAR_DO.urn
    }
    assert {name: both for name, both in found.items() if any(both)} == STATES
    assert "beam:requirement:pardo:stateful:v1" in pipeline.requirements


def test_remainders_are_batched_by_dataflows_own_transform_in_shards_of_a_key(built: Bucket) -> None:
    urn = common_urns.composites.GROUP_INTO_BATCHES_WITH_SHARDED_KEY.urn
    (group,) = [one for one in built.pipeline("first").components.transforms.values() if one.spec.urn == urn]
    assert group.unique_name == BATCHES
    payload = proto.GroupIntoBatchesPayload.FromString(group.spec.payload)
    assert (payload.batch_size, payload.max_buffering_duration_millis) == (BATCH, 300)


def test_labels_are_the_same_in_every_build_and_the_ones_of_before(built: Bucket) -> None:
    first, second = built.pipeline("first"), built.pipeline("second")
    assert steps(first) == REBATCH
    assert sorted(leaves(first)) == sorted(leaves(second))


def test_the_job_is_a_streaming_one_and_its_options_reach_it(built: Bucket) -> None:
    first, second = built.job("first"), built.job("second")
    assert (first["name"], first["type"]) == ("first", "JOB_TYPE_STREAMING")
    assert {"use_runner_v2", "enable_streaming_engine"} <= set(first["environment"]["experiments"])
    assert second["environment"]["serviceOptions"] == ["streaming_mode_at_least_once"]
    assert second["environment"]["workerPools"][0]["autoscalingSettings"]["maxNumWorkers"] == 4
    told = first["environment"]["sdkPipelineOptions"]["options"]
    assert told["events"] == f"pubsub:{SUBSCRIPTION}"
    told_all = str(first) + str(built.pipeline("first"))
    assert HIDDEN not in told_all
    (pool,) = first["environment"]["workerPools"]
    assert {"workflow.tar.gz", "submission_environment_dependencies.txt"} == {one["name"] for one in pool["packages"]}


def test_the_launcher_of_a_flex_template_makes_the_same_job_in_its_own_image(built: Bucket) -> None:
    job = built.job("flex")
    (pool,) = job["environment"]["workerPools"]
    assert {one["containerImage"] for one in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert [one["name"] for one in pool["packages"]] == ["submission_environment_dependencies.txt"]
    assert job["environment"]["sdkPipelineOptions"]["options"]["ignore_times"] is True
    assert sorted(leaves(built.pipeline("flex"))) == sorted(leaves(built.pipeline("first")))


WORKER = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import pipelines, schemas, stores, transforms, runners, serving
for package in (pipelines, schemas, stores, transforms, runners, serving):
    assert package.__file__.startswith(sys.argv[1]), package.__file__
    for one in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not one.name.endswith("__main__"):
            importlib.import_module(one.name)
from schemas.contracts import fingerprint, released
from pipelines.operations.report.page import write_report
print(fingerprint("campaign_event"), len(sys.modules))
"""


def test_what_workers_install_imports_in_a_clean_environment(built: Bucket, tmp_path: Path) -> None:
    (tmp_path / "sdist").mkdir()
    with tarfile.open(fileobj=io.BytesIO(built.staged("first", "workflow.tar.gz"))) as archive:
        archive.extractall(tmp_path / "sdist", filter="data")
    (source,) = (tmp_path / "sdist").iterdir()
    target = tmp_path / "installed"
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", f"--target={target}"]
    subprocess.run([sys.executable, *install, str(source)], check=True, capture_output=True)
    assert not [name for name in os.listdir(target) if name in ("tests", "bench", "examples", "docs")]
    assert (target / "schemas/avro/campaign_event.avsc").is_file()
    # -S leaves out what points to this checkout; what is installed comes back, without its .pth files.
    places = [path for path in sys.path if path.endswith("site-packages")]
    code = f"import sys; sys.path += {places!r}\n{WORKER}"
    done = subprocess.run([sys.executable, "-S", "-c", code, str(target)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()[0]) == 16


def test_a_launch_built_for_dataflow_gives_the_events_of_one_on_this_machine(
    cloud: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = any_place(tmp_path)
    assert place.launch() == 0
    customers = cloud.put(place.root / "customers.parquet", "customers/customers.parquet")
    argv = [f"--campaigns={place.root / 'campaigns'}", f"--customers={customers}", f"--events=file:{cloud.uri}/events",
            f"--output={cloud.uri}/launch", "--launch_id=launch-1", f"--secrets=projects/{PROJECT}"]  # fmt: skip
    options = cloud.dataflow("launch-1")
    assert launch.run([*argv, *options]) == 0
    pipeline = cloud.pipeline("launch-1")
    assert steps(pipeline) == LAUNCH
    assert cloud.job("launch-1")["type"] == "JOB_TYPE_BATCH"

    shutil.rmtree(cloud.copies)  # a worker starts with nothing
    cloud.copies.mkdir()
    assert run_here(pipeline) == "DONE"
    assert launch.run([*argv, *options]) == 0  # all batches are done: it closes
    events = {}
    for name in cloud.names("events"):
        for event in fastavro.reader(io.BytesIO(cloud.read(name))):
            event.pop("emitted_at")
            events[event["event_id"]] = event
    assert events == place.events()
    assert {"summary.json", "report.html", "sticky.parquet"} <= {
        name.rpartition("/")[2] for name in cloud.names("launch")
    }
    capsys.readouterr()
    assert main(["check", f"{cloud.uri}/launch"]) == 0
    assert "WRONG" not in capsys.readouterr().out
