"""The launch from its options to its summary, on this machine and on Dataflow."""

from __future__ import annotations

import logging
import os
import sys
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
from pipelines.launch.finalize import check_resumed, close, read_closed, table
from pipelines.launch.input_warnings import refuse_warnings
from pipelines.launch.inputs import prepare
from pipelines.launch.options import LaunchConfig, LaunchOptions, runner_options
from pipelines.launch.pipeline import build, find_recipients
from pipelines.launch.progress import Progress, Silent, watched
from pipelines.launch.remote import check_launch, named, prepare_remote, pull_launch, send_inputs, upload_results
from pipelines.launch.survey import survey
from stores.launches.launch_folder import LaunchFolder


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
        survey(job, lambda p, sharing: find_recipients(p, job, surveyed=False, sharing=sharing), options)
        if job.strict:
            progress.phase("look for warnings")
            refuse_warnings(job, lambda p: find_recipients(p, job, surveyed=True), options)
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
        survey(here, lambda p, sharing: find_recipients(p, here, surveyed=False, sharing=sharing), built_in)
        if job.strict:
            progress.phase("look for warnings")
            refuse_warnings(job, lambda p: find_recipients(p, here, surveyed=True), built_in)
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
        parsed = read_launch(sys.argv[1:] if argv is None else argv)
        options = parsed.options
        config = LaunchConfig.of(options.view_as(LaunchOptions), [*parsed.problems, *check_launch(options)])
        print_warnings(parsed)
        summary = on_the_cloud(config, options, progress) if on_dataflow(options) else launch(config, options, progress)
    finally:
        progress.stop()
    if isinstance(summary, Submitted):
        print(summary)
        return Ending.DONE
    print(table(summary, os.path.join(config.output, "report.html")))
    if summary["strict"] and summary["warnings"]:
        print("strict: the events were published; these warnings showed only then", file=sys.stderr)
        return Ending.WARNINGS
    return Ending.DONE
