"""The built-in engine: a patch of Beam's worker, where it runs in this process."""

from __future__ import annotations

from apache_beam.runners.portability.fn_api_runner import worker_handlers


def patch_beam() -> None:
    """Turns off the cache of state. The state itself is in this process, so the cache spares nothing, and Beam measures
    what it puts there by a walk over the globals of all modules: a millisecond a key and step."""
    worker_handlers.STATE_CACHE_SIZE_MB = 0
