"""Launch campaigns: one Avro event a customer, and a row for everyone who was matched.

    read batches | evaluate the audience | assign variants | suppress | generate offers | build events
                 | publish | record exposures

Before it, the survey decides what only all customers together can tell (pipelines/launch/survey.py); after it, the
counts of all batches become summary.json and report.html (pipelines/launch/finalize.py). The order of all this is in
pipelines/launch/driver.py.
"""

from __future__ import annotations

from functools import partial

import apache_beam as beam

from pipelines.launch.inputs import LaunchJob
from pipelines.launch.worker_files import WorkerFiles, open_sink
from transforms.audience.evaluate import EvaluateAudience
from transforms.customers.read_customers import ReadCustomers
from transforms.events.build_events import BuildEvents
from transforms.events.publish_events import PublishEvents
from transforms.experiments.assign_variants import AssignVariants
from transforms.offers.generate import GenerateOffers
from transforms.reconciliation.record_exposures import RecordExposures
from transforms.suppression.suppress import Suppress


def build(p: beam.Pipeline, job: LaunchJob, done: set[str]) -> beam.PCollection[str]:
    """The names of the batches that are done, without those that were `done` before.

    Failures travel in the batches: EvaluateAudience makes dead letters of the rows that are no customers, PublishEvents
    of the events that the broker refuses, and RecordExposures writes them. Any other failure ends the launch.
    """
    plan, config, worker = job.plan, job.config, WorkerFiles.of(job)
    sink = partial(open_sink, config.events, config.broker_wait, config.kafka)
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
