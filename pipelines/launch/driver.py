"""The launch from its options to its summary. The sequence is the same on this machine and on Dataflow."""

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
from pipelines.command_line.logs import configure_logs, logs_are_json, say
from pipelines.engines.choose import choose_batch_engine
from pipelines.engines.dataflow.checks import launch_problems, local_problems, on_dataflow
from pipelines.engines.dataflow.submit import Submitted, name_job, submit
from pipelines.launch.finalize import check_resumed, finalize_launch, log_results, read_finished_summary, summary_table
from pipelines.launch.input_warnings import refuse_warnings
from pipelines.launch.inputs import LaunchJob, prepare_launch
from pipelines.launch.options import LaunchConfig, LaunchOptions
from pipelines.launch.pipeline import build
from pipelines.launch.progress import LoggedProgress, Progress, watched
from pipelines.launch.storage import LaunchStorage
from pipelines.launch.survey import survey
from schemas.problems import Problem
from stores.launches.launch_folder import LaunchFolder


def launch(config: LaunchConfig, options: PipelineOptions, progress: Progress) -> dict[str, Any] | Submitted:
    """The summary of a finished launch; where only a template of its job was asked for, that template.

    The survey and the warnings always run on this machine. Raises InputError for mistakes in the inputs, before
    anything is published, and JobError when the launch cannot go on; the same call then resumes it.
    """
    folder = LaunchFolder(config.output)
    storage = LaunchStorage(config, folder)
    folder.prepare()
    with folder.locked():
        progress.phase("read and check")
        storage.download()
        job = prepare_launch(config, folder)
        check_resumed(job)
        progress.phase("survey")
        survey(job, _local_options(options))
        if job.strict:
            progress.phase("look for warnings")
            refuse_warnings(job, _local_options(options))
        unfinished = job.batches - len(folder.done())
        if not unfinished and (summary := read_finished_summary(job)) is not None:
            return summary
        if unfinished:
            FileSystems.set_options(options)  # the survey's pipeline set its own
            storage.upload_inputs()
            progress.phase("launch", total=job.snapshot.rows)
            submitted = _run(replace(job, remote_inputs=storage.remote_inputs), options, progress)
            if submitted is not None and submitted.job is None:
                return submitted
            storage.download()
        progress.phase("sum up")
        summary = finalize_launch(job, progress.seconds())
        storage.upload_results()
        return summary


def _run(job: LaunchJob, options: PipelineOptions, progress: Progress) -> Submitted | None:
    """Run the batches that are not done, on this machine or on Dataflow, and wait for the end; what was submitted."""
    if on_dataflow(options):
        p = beam.Pipeline(options=name_job(options, f"launch-{job.plan.launch_id}"))
        build(p, job, job.folder.done())
        submitted, wait = submit(p, options)
        if submitted.job is not None:
            wait()
        return submitted
    with watched(job, progress), beam.Pipeline(options=choose_batch_engine(options)) as p:
        build(p, job, job.folder.done())
    return None


def _local_options(options: PipelineOptions) -> PipelineOptions:
    """The options of the pipelines that run on this machine before the launch."""
    return choose_batch_engine(PipelineOptions(["--runner=DirectRunner"]) if on_dataflow(options) else options)


def run(argv: list[str] | None = None, progress: Progress | None = None) -> int:
    """Launch with these options and print the summary; the exit code (pipelines/command_line/exit_codes.py)."""
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it would log the same error
    return exit_code(partial(_launch_and_print, argv, progress or Progress()), "The launch stopped: ")


def _launch_and_print(argv: list[str] | None, progress: Progress) -> Ending:
    try:
        parsed = read_launch(sys.argv[1:] if argv is None else argv)
        configure_logs(parsed.options.view_as(LaunchOptions).log_format)
        if logs_are_json():
            progress = LoggedProgress()
        problems = [*parsed.problems, *_engine_problems(parsed.options)]
        config = LaunchConfig.of(parsed.options.view_as(LaunchOptions), problems)
        print_warnings(parsed)
        result = launch(config, parsed.options, progress)
    finally:
        progress.stop()
    if isinstance(result, Submitted):
        print(result)
        return Ending.DONE
    if logs_are_json():
        log_results(result)
    print(summary_table(result, os.path.join(config.output, "report.html")))
    if result["strict"] and result["warnings"]:
        say("strict: the events were published; these warnings showed only then", logging.WARNING)
        return Ending.WARNINGS
    return Ending.DONE


def _engine_problems(options: PipelineOptions) -> list[Problem]:
    """The options that the workers of the chosen engine could not use. Also hands Beam the options by which it reaches
    Cloud Storage, since the inputs are read next."""
    FileSystems.set_options(options)
    launch_options = options.view_as(LaunchOptions)
    return launch_problems(launch_options, options) if on_dataflow(options) else local_problems(launch_options)
