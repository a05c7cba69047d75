"""Prism: where it is, and Beam's worker beside it, changed from outside where Beam or Prism are in the way."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import statesampler
from apache_beam.runners.worker.sdk_worker import SdkWorker

from pipelines.engines.memory import collect_rarely
from pipelines.engines.servers import guard_servers

_INSTALLED = Path(__file__).parents[2] / ".engines/prism"  # by `make engines`


def prepare(options: PipelineOptions) -> None:
    """Prism's settings, and Beam's worker as this process needs it beside Prism."""
    own = options.view_as(PrismRunnerOptions)
    own.prism_location = own.prism_location or prism()
    own.prism_log_level = "warn"
    logging.getLogger("PrismJobServer").addFilter(_is_news)
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    guard_servers()
    _finalise_quietly()
    _end_bundles_at_once()
    _refuse_splits()
    _answer_progress()
    collect_rarely()


def _is_news(record: logging.LogRecord) -> bool:
    """Prism warns of each transform that does nothing; Beam's own Create has one."""
    return "empty transform" not in record.getMessage()


def _finalise_quietly() -> None:
    """Prism asks to finalise the bundle that splits a source too, in which nothing could register; the SDK prints a
    traceback for it. This answers that all is well."""
    finalise = SdkWorker.finalize_bundle
    if getattr(finalise, "quiet", False):
        return

    def quiet(worker: Any, request: Any, instruction_id: str) -> Any:
        try:
            return finalise(worker, request, instruction_id)
        except RuntimeError as error:
            if "not in a finalizable state" not in str(error):
                raise
            done = beam_fn_api_pb2.FinalizeBundleResponse()
            return beam_fn_api_pb2.InstructionResponse(instruction_id=instruction_id, finalize_bundle=done)

    quiet.quiet = True  # type: ignore[attr-defined]
    SdkWorker.finalize_bundle = quiet


def _refuse_splits() -> None:
    """Prism splits a bundle that makes no progress for a tenth of a second, and loses elements when the stage has
    timers (Beam issue 35771: it warns of an unexpected split). Nothing here needs to be split."""

    def none(worker: Any, request: Any, instruction_id: str) -> Any:
        nothing = beam_fn_api_pb2.ProcessBundleSplitResponse()
        return beam_fn_api_pb2.InstructionResponse(instruction_id=instruction_id, process_bundle_split=nothing)

    SdkWorker.process_bundle_split = none


def _answer_progress() -> None:
    """Prism asks each running bundle ten times a second how far it is, and does nothing with the answer here (it
    would split). To find one took a tenth of the worker's time."""

    def none(worker: Any, request: Any, instruction_id: str) -> Any:
        nothing = beam_fn_api_pb2.ProcessBundleProgressResponse()
        return beam_fn_api_pb2.InstructionResponse(instruction_id=instruction_id, process_bundle_progress=nothing)

    SdkWorker.process_bundle_progress = none


def _end_bundles_at_once() -> None:
    """A bundle ends when the thread that samples where it spends its time next wakes, up to 200 ms later, and Prism
    turns a core at full speed meanwhile. Nobody reads those samples here: there is no such thread."""

    def start(sampler: Any) -> None:
        sampler.tracked_thread = threading.current_thread()
        statesampler.set_current_tracker(sampler)
        sampler.started = True

    def stop(sampler: Any) -> None:
        statesampler.set_current_tracker(None)
        sampler.finished = True

    statesampler.StateSampler.start, statesampler.StateSampler.stop = start, stop


def prism() -> str | None:
    """Prism's path on this machine; None where Beam has to download it."""
    named = os.environ.get("CAMPAIGNS_PRISM")
    found = Path(named) if named else _INSTALLED
    return str(found.absolute()) if found.is_file() else None
