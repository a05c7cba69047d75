"""The clock, and the promises of an engine, that are handed to each step that depends on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Clock = Callable[[], float]  # seconds since the epoch


class EngineTraits(NamedTuple):
    """The promises of the engine that runs a streaming pipeline.

    `wall_clock_timers`: a processing-time timer fires at its time; without it, timers fire when the input ends.
    `single_process`: all steps run in this process. `retries_bundles`: a bundle that failed runs again, and what it
    changed in state is undone. `durable_state`: state and the positions of the sources survive the end of the job.
    `early_finalization`: a bundle may be finalized before the checkpoint that holds it (docs/decisions/012).
    `native_pubsub`: the engine has a Pub/Sub source of its own. `native_batches`: GroupIntoBatches is native, or its
    state is near (docs/decisions/015).
    """

    wall_clock_timers: bool
    single_process: bool
    retries_bundles: bool
    durable_state: bool
    early_finalization: bool = False
    native_pubsub: bool = False
    native_batches: bool = False

    @property
    def memory_mirrors_state(self) -> bool:
        """Whether what a step remembers in this process is what its state holds, so that it need not ask."""
        return self.single_process and not self.retries_bundles
