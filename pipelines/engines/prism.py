"""Prism: where it is installed, and patches of Beam's worker around what Beam or Prism get wrong."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import statesampler
from apache_beam.runners.worker.sdk_worker import SdkWorker

from pipelines.engines.servers import guard_servers

_INSTALLED = Path(__file__).parents[2] / ".engines/prism"  # by `make engines`


def find_prism() -> str | None:
    """Prism's path on this machine; None where Beam has to download it."""
    named = os.environ.get("CAMPAIGNS_PRISM")
    path = Path(named) if named else _INSTALLED
    return str(path.absolute()) if path.is_file() else None


def patch_beam() -> None:
    """Patches Beam's worker in this process, its servers and its logs, as a job on Prism needs them."""
    logging.getLogger("PrismJobServer").addFilter(_is_news)
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    guard_servers()
    _finalize_quietly()
    _end_bundles_at_once()
    # Prism splits a bundle that makes no progress for a tenth of a second, and loses elements when the stage has timers
    # (Beam issue 35771: it warns of an unexpected split). Nothing here needs to be split.
    SdkWorker.process_bundle_split = _always(process_bundle_split=beam_fn_api_pb2.ProcessBundleSplitResponse())
    # Prism asks each running bundle for its progress ten times a second and would only use the answer to split; to
    # compute it took a tenth of the worker's time.
    SdkWorker.process_bundle_progress = _always(process_bundle_progress=beam_fn_api_pb2.ProcessBundleProgressResponse())


def _is_news(record: logging.LogRecord) -> bool:
    """Prism warns of each transform that does nothing; Beam's own Create has one."""
    return "empty transform" not in record.getMessage()


def _finalize_quietly() -> None:
    """Answers that a bundle without finalizers is finalized. Prism asks for it after the bundle that splits a source,
    and the SDK prints a traceback."""
    finalize = SdkWorker.finalize_bundle
    if hasattr(finalize, "__wrapped__"):
        return

    done = _always(finalize_bundle=beam_fn_api_pb2.FinalizeBundleResponse())

    @wraps(finalize)
    def quiet(worker: Any, request: Any, instruction_id: str) -> Any:
        try:
            return finalize(worker, request, instruction_id)
        except RuntimeError as error:
            if "not in a finalizable state" not in str(error):
                raise
            return done(worker, request, instruction_id)

    SdkWorker.finalize_bundle = quiet


def _always(**response: Any) -> Callable[[Any, Any, str], Any]:
    """A method of Beam's worker that gives the same response to every request."""

    def respond(worker: Any, request: Any, instruction_id: str) -> Any:
        return beam_fn_api_pb2.InstructionResponse(instruction_id=instruction_id, **response)

    return respond


def _end_bundles_at_once() -> None:
    """Runs bundles without the thread that samples where they spend their time. A bundle ends only when that thread
    next wakes, up to 200 ms later, while Prism uses a whole core; nobody reads the samples here."""

    def start(sampler: Any) -> None:
        sampler.tracked_thread = threading.current_thread()
        statesampler.set_current_tracker(sampler)
        sampler.started = True

    def stop(sampler: Any) -> None:
        statesampler.set_current_tracker(None)
        sampler.finished = True

    statesampler.StateSampler.start, statesampler.StateSampler.stop = start, stop
