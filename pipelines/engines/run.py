"""Run a streaming pipeline until it ends or a signal stops it, or leave it on its cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import apache_beam as beam

from pipelines.command_line.logs import say
from pipelines.engines.servers import expect_lost_server, lost_server
from schemas.problems import JobError
from stores.local.stop_signals import StopSignals


class _Left(Exception):
    """The command ends and its job goes on, on a cluster."""


def run_pipeline(p: beam.Pipeline, signals: StopSignals, stop: Callable[[], None]) -> None:
    """Runs the pipeline to its end, or until the command leaves it. A signal calls `stop`. Raises JobError when Prism
    ends before its job, unless a signal asked to stop: a service manager may signal every process."""
    try:
        with suppress(_Left), signals.calling(stop):
            p.run().wait_until_finish()
    except Exception as error:
        if not lost_server(error):
            raise
        if not signals.asked:
            todo = "Run the same command again: nothing is lost"
            raise JobError(f"the process of Prism has ended before its job. {todo}") from error
        say("Prism was stopped too: the next run goes on with what it still held")


def stop_sources(ask: Callable[[], None], done: str) -> None:
    """What a signal does to a job in this process, or to a drain: its sources end; what they read is `done` first."""
    say(f"stopping: what was read is {done} first; give the signal again to stop at once")
    ask()
    expect_lost_server()


def leave() -> None:
    """What a signal does to a job on a cluster."""
    say("this command ends and the job goes on; to stop the job: campaigns flink stop (docs/engines.md)")
    raise _Left
