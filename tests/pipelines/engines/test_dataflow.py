"""Options that a job on Dataflow cannot use are refused together, before it is submitted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from support.delivering import Delivery

from pipelines.launch import driver as launch
from pipelines.rebatch import driver as rebatch

RUNNER = "--runner=DataflowRunner"
GOOGLE = (RUNNER, "--project=project-1", "--region=europe-west1", "--temp_location=gs://bucket/tmp")
LEDGER = "firestore:projects/project-1/databases/(default)/deliveries"


def fixes(text: str) -> dict[str, str]:
    """The fix of each problem of the command line, by option."""
    lines = text.splitlines()
    return {line.split()[2]: fix.strip() for line, fix in pairwise(lines) if line.startswith("command")}


def test_rebatch_names_everything_that_workers_could_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = Delivery(tmp_path).configure()
    assert delivery.run(RUNNER, "--drain", "--temp_location=/tmp/x") == 2
    problems = fixes(capsys.readouterr().err)
    assert problems.keys() == {"--campaigns", "--drain", "--events", "--ledger", "--output", "--project", "--region", "--temp_location"}  # fmt: skip
    assert "gcloud storage cp" in problems["--campaigns"]
    assert "file:gs://BUCKET/FOLDER" in problems["--events"]
    assert "firestore:projects/P" in problems["--ledger"]
    assert "gcloud dataflow jobs drain" in problems["--drain"]
    assert "gs://BUCKET/FOLDER" in problems["--temp_location"]
    assert not delivery.output.exists()


def test_an_output_in_the_cloud_needs_a_ledger_there_and_a_job_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = Delivery(tmp_path).configure()
    argv = [
        f"--campaigns={delivery.campaigns}",
        "--events=pubsub:projects/project-1/subscriptions/events",
        "--output=gs://bucket/out",
    ]
    assert rebatch.run([*argv, *GOOGLE]) == 2
    assert fixes(capsys.readouterr().err).keys() == {"--ledger"}
    assert rebatch.run([*argv, f"--ledger={LEDGER}"]) == 2
    assert "only a job on Dataflow writes there" in fixes(capsys.readouterr().err)["--output"]


def test_a_project_of_secrets_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Delivery(tmp_path).configure().run("--secrets=project-1") == 2
    assert "write projects/P" in fixes(capsys.readouterr().err)["--secrets"]


def test_a_launch_names_everything_that_workers_could_not_use(capsys: pytest.CaptureFixture[str]) -> None:
    local = ["--campaigns=campaigns", "--customers=customers.csv", "--events=file:events", "--output=out",
             "--history=before.csv", "--sticky=out/sticky.parquet"]  # fmt: skip
    assert launch.run([*local, *GOOGLE]) == 2
    problems = fixes(capsys.readouterr().err)
    assert problems.keys() == {"--customers", "--events", "--history", "--output", "--sticky"}
    assert launch.run([*local, RUNNER]) == 2
    assert {"--project", "--region", "--temp_location"} <= fixes(capsys.readouterr().err).keys()


def test_a_launch_on_this_machine_keeps_its_output_here(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--campaigns=c", "--customers=c.csv", "--events=file:events", "--output=gs://bucket/out"]
    assert launch.run(argv) == 2
    assert "only a job on Dataflow writes there" in fixes(capsys.readouterr().err)["--output"]
