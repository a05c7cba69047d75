"""The graph of a launch."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from support.launching import any_place

from connectors.uri import FileUri
from pipelines.launch.inputs import LaunchJob, prepare_launch
from pipelines.launch.options import LaunchConfig
from pipelines.launch.pipeline import build, run_to_suppress
from stores.launches.launch_folder import LaunchFolder


@pytest.fixture
def job(tmp_path: Path) -> LaunchJob:
    place = any_place(tmp_path, customers=30)
    folder = LaunchFolder(str(place.output))
    folder.prepare()
    config = LaunchConfig(
        campaigns=place.root / "campaigns",
        customers=str(place.root / "customers.parquet"),
        events=FileUri(str(place.root / "events")),
        output=str(place.output),
    )
    return prepare_launch(config, folder)


def steps_of(p: beam.Pipeline) -> list[tuple[str, str]]:
    """The label of each step, and what it is made of."""
    steps: list[Any] = p.transforms_stack[0].parts
    return [(step.full_label, repr(getattr(step.transform, "_factory", None))) for step in steps]


def test_a_launch_is_eight_steps(job: LaunchJob) -> None:
    p = beam.Pipeline()
    build(p, job, set())
    assert [label for label, _ in steps_of(p)] == [
        "ReadCustomers",
        "EvaluateAudience",
        "AssignVariants",
        "Suppress",
        "GenerateOffers",
        "BuildEvents",
        "PublishEvents",
        "RecordExposures",
    ]


def test_warnings_are_counted_over_the_first_four_steps_of_the_launch(job: LaunchJob) -> None:
    launch, counting = beam.Pipeline(), beam.Pipeline()
    build(launch, job, set())
    run_to_suppress(counting, job, surveyed=True)
    assert steps_of(counting) == steps_of(launch)[:4]


def test_the_survey_differs_from_the_launch_in_suppressing_nobody_for_an_address(job: LaunchJob) -> None:
    launch, survey = beam.Pipeline(), beam.Pipeline()
    build(launch, job, set())
    run_to_suppress(survey, job, only_shared_addresses=True)
    assert steps_of(survey)[:3] == steps_of(launch)[:3]
    assert [label for label, _ in steps_of(survey)] == [label for label, _ in steps_of(launch)[:4]]
