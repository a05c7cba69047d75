"""Launch campaigns: one Avro event a customer, and a row for everyone who was matched.

    read batches | evaluate the audience | assign variants | suppress | generate offers | build events
                 | publish | record exposures

Before it, the survey decides what only all customers together can tell (pipelines/launch/survey.py); after it, the
counts of all batches become summary.json and report.html (pipelines/launch/finalize.py).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.command_line.commands import read_launch
from pipelines.command_line.engine_options import print_warnings
from pipelines.command_line.exit_codes import Ending, exit_code
from pipelines.engines.dataflow.checks import on_dataflow
from pipelines.engines.dataflow.submit import Submitted, submit
from pipelines.launch.factories import (
    make_assigner,
    make_evaluator,
    make_events,
    make_generator,
    make_sink,
    make_suppressor,
)
from pipelines.launch.finalize import check_resumed, close, read_closed, table
from pipelines.launch.input_warnings import refuse_warnings
from pipelines.launch.inputs import LaunchJob, prepare
from pipelines.launch.options import LaunchConfig, LaunchOptions, runner_options
from pipelines.launch.progress import Progress, Silent, watched
from pipelines.launch.remote import check_launch, named, prepare_remote, pull_launch, send_inputs, upload_results
from pipelines.launch.remote_inputs import after_download, read_downloaded_part, upload_exposures
from pipelines.launch.survey import survey
from stores.dead_letters import write_dead_letters
from stores.launches.launch_folder import LaunchFolder
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


def launch(config: LaunchConfig, options: PipelineOptions, progress: Progress) -> dict[str, Any]:
    """The summary of a launch that ran, or went on, to its end.

    Raises InputError for mistakes in the inputs, before anything ran, and JobError when it cannot go on;
    the same call then resumes it.
    """
    folder = LaunchFolder(config.output)
    folder.prepare()
    with folder.locked():
        progress.phase("read and check")
        job = prepare(config, folder)
        check_resumed(job)
        options = runner_options(options)
        progress.phase("survey")
        survey(job, lambda p, sharing: matched(p, job, set(), preferred=False, sharing=sharing), options)
        if job.strict:
            progress.phase("look for warnings")
            refuse_warnings(job, lambda p: matched(p, job, set(), preferred=True), options)
        done = folder.done()
        if len(done) == job.batches and (summary := read_closed(job)) is not None:
            return summary
        progress.phase("launch", total=job.snapshot.rows)
        with watched(folder, job, progress), beam.Pipeline(options=options) as p:
            build(p, job, done)
        progress.phase("sum up")
        return close(job, progress.seconds())


def on_the_cloud(config: LaunchConfig, options: PipelineOptions, progress: Progress) -> dict[str, Any] | Submitted:
    """The summary of a launch whose batches Dataflow works through, or the template that was written.

    What only all customers together can tell is decided here, as ever; so is the summary, once Dataflow is done.
    Raises as `launch` does; the same call then resumes it.
    """
    folder = LaunchFolder(config.output)
    folder.prepare()
    with folder.locked():
        progress.phase("read and check")
        pull_launch(folder)
        job = prepare_remote(config, folder)
        check_resumed(job)
        progress.phase("survey")
        here = replace(job, afar=None)
        built_in = runner_options(PipelineOptions(["--runner=DirectRunner"]))
        survey(here, lambda p, sharing: matched(p, here, set(), preferred=False, sharing=sharing), built_in)
        if job.strict:
            progress.phase("look for warnings")
            refuse_warnings(job, lambda p: matched(p, here, set(), preferred=True), built_in)
        FileSystems.set_options(options)  # each pipeline sets its own
        done = folder.done()
        if len(done) == job.batches and (summary := read_closed(job)) is not None:
            return summary
        if len(done) < job.batches:
            send_inputs(job)
            progress.phase("launch", total=job.snapshot.rows)
            p = beam.Pipeline(options=named(options, job))
            build(p, job, done)
            submitted, wait = submit(p, options)
            if submitted.job is None:
                return submitted
            wait()
            pull_launch(folder)
        progress.phase("sum up")
        return upload_results(job, close(job, progress.seconds()))


def run(argv: list[str] | None = None, progress: Progress | None = None) -> int:
    """Launch as the options say; the exit code (pipelines/command_line/exit_codes.py)."""
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it would log the same error
    return exit_code(partial(_run, argv, progress or Silent()), "The launch stopped: ")


def _run(argv: list[str] | None, progress: Progress) -> Ending:
    try:
        given = read_launch(sys.argv[1:] if argv is None else argv)
        options = given.options
        config = LaunchConfig.of(options.view_as(LaunchOptions), [*given.problems, *check_launch(options)])
        print_warnings(given)
        made = on_the_cloud(config, options, progress) if on_dataflow(options) else launch(config, options, progress)
    finally:
        progress.stop()
    if isinstance(made, Submitted):
        print(made)
        return Ending.DONE
    print(table(made, os.path.join(config.output, "report.html")))
    if made["strict"] and made["warnings"]:
        print("strict: the events were published; these warnings showed only then", file=sys.stderr)
        return Ending.WARNINGS
    return Ending.DONE
