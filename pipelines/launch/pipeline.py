"""Launch campaigns: one Avro event a customer, and a row for everyone who was matched.

    read batches | evaluate the audience | assign variants | suppress | generate offers | build events
                 | publish | record exposures

Before it, the survey decides what only all customers together can tell (pipelines/launch/survey.py); after it, the
counts of all batches become summary.json and report.html (pipelines/launch/finalize.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import apache_beam as beam

from pipelines.launch.factories import (
    make_assigner,
    make_evaluator,
    make_events,
    make_generator,
    make_sink,
    make_suppressor,
)
from pipelines.launch.inputs import LaunchJob
from pipelines.launch.remote_inputs import after_download, read_downloaded_part, upload_exposures
from stores.dead_letters import write_dead_letters
from stores.launches.snapshot import read_part
from stores.launches.survey_results import read_sharing_rows
from transforms.audience.evaluate import EvaluateAudience
from transforms.customers.read_customers import ReadCustomers
from transforms.events.build_events import BuildEvents
from transforms.events.publish_events import PublishEvents, RecordExposures
from transforms.experiments.assign_variants import AssignVariants
from transforms.offers.generate import GenerateOffers
from transforms.suppression.suppress import Suppress


def matched(p: beam.Pipeline, job: LaunchJob, done: set[str], *, preferred: bool, sharing: bool = False) -> Any:
    """LaunchBatches with outcomes up to the suppression: what the survey and the launch have in common.

    `preferred`: it is decided who of an address is kept. `sharing`: only rows that share an address.
    """
    config, plan, survey = job.config, job.plan, job.folder.survey
    only = partial(read_sharing_rows, survey) if sharing else None
    read = partial(read_part, columns=plan.columns)
    if job.afar is not None:
        read = partial(read_downloaded_part, job.afar, columns=plan.columns)
    return (
        p
        | "ReadCustomers" >> ReadCustomers(job.parts, read, done, only)
        | "EvaluateAudience" >> EvaluateAudience(_made(job, make_evaluator, plan, survey))
        | "AssignVariants" >> AssignVariants(_made(job, make_assigner, plan, config.sticky))
        | "Suppress" >> Suppress(_made(job, make_suppressor, plan, config.history, survey if preferred else None))
    )


def _made(job: LaunchJob, make: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """What a worker calls to make a step's work; afar it brings first what that reads."""
    return partial(make, *args) if job.afar is None else partial(after_download, job.afar, make, *args)


def build(p: beam.Pipeline, job: LaunchJob, done: set[str]) -> beam.PCollection[str]:
    """The names of the batches that the pipeline finishes."""
    folder, plan, config = job.folder, job.plan, job.config
    mark = job.manifest["inputs"].get("code_secret")
    letters, exposures = str(folder.dead_letters), folder.write_exposures
    if folder.remote is not None:
        letters, exposures = f"{folder.remote.uri}/dead_letters", partial(upload_exposures, folder.remote.uri)
    return (
        matched(p, job, done, preferred=True)
        | "GenerateOffers"
        >> GenerateOffers(_made(job, make_generator, plan, job.sizes, folder.survey, config.secrets, mark))
        | "BuildEvents" >> BuildEvents(partial(make_events, plan))
        | "PublishEvents" >> PublishEvents(plan, partial(make_sink, config.events, config.broker_wait, config.kafka))
        | "RecordExposures" >> RecordExposures(plan, partial(write_dead_letters, letters), exposures)
    )
