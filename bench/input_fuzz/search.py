"""Hypothesis makes the input of each number of a seed, whatever ran before it, and makes that of a find smaller."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.internal.conjecture import providers

from bench.input_fuzz.grammar import build
from bench.input_fuzz.inputs import Inputs

SHRINKS = 60
"""Runs in which a find is made smaller."""


class _Found(Exception):
    """The input shows the find: Hypothesis makes it smaller."""


class _Enough(BaseException):
    """Ends Hypothesis's search at once: no exception that it would catch."""


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """While it is open, a seed gives the same inputs in every process.

    Hypothesis otherwise also draws constants that it finds in the modules that happen to be loaded.
    """
    providers.CONSTANTS_CACHE.cache.clear()
    with mock.patch.object(providers, "_get_local_constants", providers.Constants):
        yield
    providers.CONSTANTS_CACHE.cache.clear()


def use_inputs(start: int, number: int, use: Callable[[Inputs], None]) -> None:
    """Hands the inputs of a number of a seed to a function; call it while `repeatable` is open.

    The function runs inside Hypothesis, which allows the depth that nested inputs need.
    """
    simplest: Inputs | None = None  # what Hypothesis makes first, whatever the seed
    is_used = False

    def take(inputs: Inputs) -> None:
        nonlocal simplest, is_used
        if simplest is None:
            simplest = inputs
            return
        is_used = True
        use(inputs)
        raise _Enough

    _search(start, number, (Phase.generate,), take)
    if simplest is not None and not is_used:  # for a few numbers Hypothesis makes no other
        use(simplest)


def make_smaller(start: int, number: int, shows: Callable[[Inputs], bool]) -> None:
    """Hands ever smaller inputs of a number to a function, as long as they show the find, in `SHRINKS` runs."""
    tried = found = 0

    def run(inputs: Inputs) -> None:
        nonlocal tried, found
        tried += 1
        if tried == 1:  # the simplest of all
            return
        if tried > SHRINKS:
            raise _Enough
        if shows(inputs):
            found += 1
            raise _Found
        if not found:
            raise _Enough

    _search(start, number, (Phase.generate, Phase.shrink), run)


def _search(start: int, number: int, phases: tuple[Phase, ...], use: Callable[[Inputs], None]) -> None:
    """Hands inputs to `use`: first the simplest of all, then the one of the number, then smaller ones."""

    @seed(f"{start} {number}")
    @settings(max_examples=2, database=None, deadline=None, phases=phases, verbosity=Verbosity.quiet,
              suppress_health_check=list(HealthCheck), report_multiple_bugs=False)  # fmt: skip
    @given(st.data())
    def test(data: st.DataObject) -> None:
        use(build(data.draw))

    with contextlib.suppress(_Found, _Enough, Flaky):
        test()
