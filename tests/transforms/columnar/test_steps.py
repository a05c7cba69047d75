"""No step of the launch changes its input, which Beam forbids: engines give one element to several steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from support.batches import any_plan, batch_of, steps
from support.factories import SECRET, any_customers, any_engine
from support.launching import LISTS, RICH

from schemas.elements import CustomerBatch, EventBatch, LaunchBatch, Refusal
from schemas.outcomes import OUTCOMES
from transforms.columnar.steps import BatchCoder
from transforms.customers.read_customers import ReadCustomers
from transforms.events.build_events import build_events
from transforms.events.publish_events import PublishEvents
from transforms.reconciliation.record_exposures import RecordExposures

NAMES = ["ReadCustomers", "EvaluateAudience", "AssignVariants", "Suppress", "GenerateOffers", "BuildEvents",
         "PublishEvents", "RecordExposures"]  # fmt: skip
CAPACITY = {("codes", "five"): 9, ("listed", "list"): 7}


@dataclass(frozen=True)
class Part:
    number: int = 0
    batches: int = 1


class Sink:
    """Takes all events but the third, which is too large."""

    def open(self) -> None: ...
    def send(self, events: EventBatch) -> None: ...
    def close(self) -> None: ...
    def settle(self) -> list[Refusal]:
        return [Refusal(2, "over_size", "2,000,000 bytes")]


class FirstRun:
    """A PCollection stand-in that keeps the DoFn which a transform applies."""

    def __or__(self, step: Any) -> Any:
        transform = getattr(step, "transform", step)
        if isinstance(transform, beam.ParDo):
            self.fn = transform.fn
        return self


def function_of(transform: Any) -> Callable[[Any], list[Any]]:
    """What a transform makes of one element, in a bundle of its own."""
    stand_in = FirstRun()
    transform.expand(stand_in)
    fn = stand_in.fn
    fn.setup()

    def run(element: Any) -> list[Any]:
        fn.start_bundle()
        outputs = list(fn.process(element))
        return [*outputs, *(windowed.value for windowed in fn.finish_bundle() or ())]

    return run


def launch_steps(tmp_path: Path, customers: pa.Table, written: list[Any]) -> dict[str, Callable[[Any], Any]]:
    """The function of every step, by name, over campaigns that use most of what there is."""
    engine = any_engine(
        holdouts={"global": {"share": 0.05, "seed": "g"}, "retailers": {"store-1": 0.1}},
        caps=[{"channel": "email", "at_most": 1, "within": "P7D"}],
        suppression_lists=[{"file": "lists/legal.csv"}],
    )
    plan = any_plan(tmp_path, *RICH, customers=customers, engine=engine, lists=LISTS, audiences={"idle": "orders = 0"})
    keys = {
        key: np.sort(np.array([f"{n:032x}" for n in range(1 << 124, 1 << 127, 1 << 124)], "S32")) for key in CAPACITY
    }
    more: dict[str, Any] = {"duplicates": {"00000-000": [4]}, "superseded": {"00000-000": {"codes": [6]}}}
    columns = [name for name in customers.column_names if name in plan.columns]
    batch = batch_of(customers.select(columns)).rows
    write = lambda *parts: written.append(parts)  # noqa: E731
    functions: list[Any] = [
        lambda part: function_of(ReadCustomers([Part()], lambda _: iter([batch])))(part)[0],
        *steps(plan, offer_capacity=CAPACITY, allocations=keys, **more),
        lambda element: build_events(plan, element),
        lambda element: function_of(PublishEvents(plan, Sink))(element)[0],
        lambda element: function_of(RecordExposures(plan, write, write))(element)[0],
    ]
    return dict(zip(NAMES, functions, strict=True))


def frozen(value: Any) -> Any:
    """The same element, of which nothing can be changed."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
        return value
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(part) for key, part in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(frozen, value))
    if isinstance(value, list | tuple):
        return tuple(map(frozen, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: frozen(getattr(value, field.name)) for field in fields(value)})
    return value


def as_text(value: Any) -> str:
    """All that an element holds but its seconds, for a comparison in which NaN equals NaN."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.tolist()}"
    if isinstance(value, pa.Array | pa.RecordBatch | pa.Table):
        return str(value.to_pylist())
    if isinstance(value, Mapping):
        return str({key: as_text(part) for key, part in value.items() if key != "seconds"})
    if isinstance(value, list | tuple):
        return str([as_text(part) for part in value])
    if is_dataclass(value) and not isinstance(value, type):
        return str(
            {field.name: as_text(getattr(value, field.name)) for field in fields(value) if field.name != "seconds"}
        )
    return repr(value)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """The function and the input of each step, and what was written."""
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
    written: list[Any] = []
    functions = launch_steps(tmp_path, any_customers(300), written)
    elements, element = {}, Part()
    for name, function in functions.items():
        elements[name] = element
        element = function(element)
    return functions, elements, written


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_runs_twice_on_one_batch_gives_the_same_and_leaves_its_input_as_it_was(
    name: str, inputs: Any
) -> None:
    functions, elements, written = inputs
    before = as_text(elements[name])
    written.clear()
    first = as_text(functions[name](elements[name])), as_text(written)
    assert as_text(elements[name]) == before
    written.clear()
    assert (as_text(functions[name](elements[name])), as_text(written)) == first


@pytest.mark.parametrize("name", NAMES)
def test_a_step_takes_an_input_that_cannot_be_changed(name: str, inputs: Any) -> None:
    functions, elements, _ = inputs
    expected = as_text(functions[name](elements[name]))
    assert as_text(functions[name](frozen(elements[name]))) == expected


def test_the_batches_of_these_tests_have_most_outcomes(inputs: Any) -> None:
    _, elements, _ = inputs
    batch = elements["RecordExposures"]
    assert {letter.step for letter in batch.dead_letters} == {"CheckCustomers", "PublishEvents"}
    assert all(grant.granted.any() for rows in batch.campaigns for grant in rows.offers)
    reasons = {OUTCOMES[code].reason for rows in batch.campaigns for code in rows.outcome.tolist()}
    suppressed = {"suppression_list", "shared_address", "offer_exhausted"}
    assert reasons == {None, "global", "retailer", "campaign", "over_size", *suppressed}


def test_the_rows_of_a_batch_are_never_copied(inputs: Any) -> None:
    _, elements, _ = inputs
    batches = [elements[name] for name in NAMES[2:]]
    rows = [element.batch.rows if isinstance(element, EventBatch) else element.rows for element in batches]
    assert all(part is rows[0] for part in rows)


def test_a_coded_batch_is_the_same_batch(inputs: Any) -> None:
    _, elements, _ = inputs
    for element in list(elements.values())[1:]:
        assert isinstance(element, CustomerBatch | LaunchBatch | EventBatch)
        assert as_text(BatchCoder().decode(BatchCoder().encode(element))) == as_text(element)
