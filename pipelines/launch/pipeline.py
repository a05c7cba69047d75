"""The pipeline of a launch: one Avro event a customer, and a row for everyone who was matched.

    read customers | evaluate the audience | assign variants | suppress | generate offers | build events
                   | publish | record exposures

The survey before it decides what takes all customers at once (pipelines/launch/survey.py). The counts of all batches
become summary.json and report.html after it (pipelines/launch/finalize.py). pipelines/launch/driver.py runs all three.
"""

from __future__ import annotations

from functools import partial

import apache_beam as beam

from connectors.open import open_sink
from pipelines.launch.inputs import LaunchJob
from pipelines.launch.worker_files import WorkerFiles
from schemas.elements import LaunchBatch
from transforms.audience.evaluate_audience import EvaluateAudience
from transforms.customers.read_customers import ReadCustomers
from transforms.events.build_events import BuildEvents
from transforms.events.publish_events import PublishEvents
from transforms.experiments.assign_variants import AssignVariants
from transforms.offers.generate_offers import GenerateOffers
from transforms.reconciliation.record_exposures import RecordExposures
from transforms.suppression.suppress import Suppress


def build(p: beam.Pipeline, job: LaunchJob, done: set[str]) -> beam.PCollection[str]:
    """The names of the batches that are done, without those that were `done` before.

    Failures travel in the batches: EvaluateAudience makes dead letters of the rows that are no customers, PublishEvents
    of the events that the broker refuses, and RecordExposures writes them. Any other failure ends the launch.
    """
    plan, config, worker = job.plan, job.config, WorkerFiles.of(job)
    sink = partial(open_sink, config.events, config.kafka, config.broker_wait)
    return (
        p
        | "ReadCustomers" >> ReadCustomers(job.parts, worker.read_part, done)
        | "EvaluateAudience" >> EvaluateAudience(plan, worker.read_list, worker.read_duplicates)
        | "AssignVariants" >> AssignVariants(plan, worker.read_sticky)
        | "Suppress" >> Suppress(plan, worker.read_list, worker.read_sends, worker.read_superseded)
        | "GenerateOffers"
        >> GenerateOffers(plan, job.offer_capacity, worker.read_allocations, worker.read_codes, worker.read_secret)
        | "BuildEvents" >> BuildEvents(plan)
        | "PublishEvents" >> PublishEvents(plan, sink)
        | "RecordExposures" >> RecordExposures(plan, worker.write_dead_letters, worker.write_exposures)
    )


def run_to_suppress(
    p: beam.Pipeline, job: LaunchJob, *, surveyed: bool = False, only_shared_addresses: bool = False
) -> beam.PCollection[LaunchBatch]:
    """All batches after the first four steps of `build`, for the survey and for what looks for warnings.

    `surveyed`: also suppresses the rows that the survey found superseded. `only_shared_addresses`: reads only rows that
    share an address.
    """
    plan, worker = job.plan, WorkerFiles.of(job)
    read_selection = worker.read_rows_with_shared_address if only_shared_addresses else None
    read_superseded = worker.read_superseded if surveyed else dict
    return (
        p
        | "ReadCustomers" >> ReadCustomers(job.parts, worker.read_part, (), read_selection)
        | "EvaluateAudience" >> EvaluateAudience(plan, worker.read_list, worker.read_duplicates)
        | "AssignVariants" >> AssignVariants(plan, worker.read_sticky)
        | "Suppress" >> Suppress(plan, worker.read_list, worker.read_sends, read_superseded)
    )
