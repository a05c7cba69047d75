"""The fuzzer of inputs: 500 whole inputs, good and bad, through the command line; and that its oracle sees what is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from support.factories import any_campaign
from support.launching import any_place

from bench.input_fuzz.grammar import build
from bench.input_fuzz.hunt import fuzz
from bench.input_fuzz.inputs import Facts, Inputs
from bench.input_fuzz.oracle import judge_files, judge_launch, judge_run, listing
from bench.input_fuzz.tables import Table
from bench.input_fuzz.worker import Run

EXAMPLES = 500 if os.environ.get("CAMPAIGNS_ENGINE_TESTS") else 60
SEED = 13
"""The same inputs in every run, so that a change is to blame for a find; `make fuzz` takes a seed of its own."""
PROBLEM = "1 mistake in the input; nothing was run.\nwelcome.yaml:3  audience = x > 1\n    the customers have no such column\n"


@pytest.mark.timeout(3_600)
def test_every_whole_input_ends_with_sums_that_close_or_with_what_to_do() -> None:
    found = fuzz(EXAMPLES, SEED)
    assert not found["finds"], found
    assert found["examples"] >= EXAMPLES * 0.9
    assert found["ends"]["launch 0"] > EXAMPLES * 0.05
    assert found["ends"]["launch 2"] > EXAMPLES * 0.03
    assert found["bad_parts"]["nothing"] > EXAMPLES * 0.15


def descriptions(start: int) -> list[list[str]]:
    """What the grammar makes of a seed, without running anything."""
    made = []

    @seed(start)
    @settings(
        max_examples=25, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.data())
    def collect(data: st.DataObject) -> None:
        inputs = build(data.draw)
        made.append([*inputs.bad, str(inputs.command_lines()), str(sorted(inputs.files().items()))])

    collect()
    return made


def test_the_same_seed_gives_the_same_inputs() -> None:
    assert descriptions(7) == descriptions(7) != descriptions(8)


def any_inputs(**changes: Any) -> Inputs:
    """Inputs of a launch in a folder that the tests' factories made."""
    options = {"--output": ["out"], "--events": ["file:events"]}
    return Inputs({}, {}, Table({"customer_id": ["c-1"]}), options=options, **changes)


WRONG_ENDS = [
    ("an exception", Run(None, raised="ValueError: x"), []),
    ("an end that never came", Run(None, raised="no end after 60 s"), []),
    ("a traceback beside an exit code", Run(2, err="Traceback (most recent call last):\n" + PROBLEM), ["a list"]),
    ("the name of an exception", Run(2, err=PROBLEM + "ArrowTypeError"), ["a list"]),
    ("exit code 2 in silence", Run(2), ["a list"]),
    ("exit code 2 without a remedy", Run(2, err="1 mistake\nwelcome.yaml  audience = x\n"), ["a list"]),
    ("exit code 1 for an input", Run(1, err="The launch stopped: x"), ["a list"]),
    ("a sound input that is refused", Run(2, err=PROBLEM), []),
    ("control characters", Run(2, err=PROBLEM.replace("x >", "\x1b[31mx >")), ["a list"]),
]


@pytest.mark.parametrize(("run", "bad"), [row[1:] for row in WRONG_ENDS], ids=[row[0] for row in WRONG_ENDS])
def test_the_oracle_finds(run: Run, bad: list[str]) -> None:
    assert judge_run(any_inputs(bad=bad), ["launch"], run) is not None


def test_the_oracle_lets_an_end_with_0_and_a_refusal_pass() -> None:
    assert judge_run(any_inputs(), ["launch"], Run(0)) is None
    assert judge_run(any_inputs(bad=["a list"]), ["launch"], Run(2, err=PROBLEM)) is None


WRONG_FACTS = [
    (Facts(rows=11), "rows read"),
    (Facts(customers={("c-9", "store-0")}), "an event is to nobody"),
    (Facts(never={"c-4"}), "on a list is written to"),
    (Facts(never_of={"welcome": {"c-5"}}), "on a list is written to"),
    (Facts(codes={("welcome", "one"): {"ANOTHER"}}), "not in the list"),
    (Facts(codes={("welcome", "one"): {"ONE"}}), "to two people"),
]


def test_the_oracle_counts_a_launch_anew(tmp_path: Path) -> None:
    offers = [{"id": "one", "kind": "fixed", "code": "ONE"}]
    campaign = any_campaign(experiment=None, offers=offers, content={"template": "plain", "offers": ["one"]})
    engine = {"channels": {"email": {"address": "email"}}}
    place = any_place(tmp_path, campaign, customers=10, engine=engine, email=lambda n: f"c{n}@example.com")
    assert place.launch() == 0
    assert judge_launch(any_inputs(facts=Facts(rows=10, never={"c-77"})), tmp_path) is None
    for facts, rule in WRONG_FACTS:
        find = judge_launch(any_inputs(facts=facts), tmp_path)
        assert find is not None
        assert rule in find.rule
    next((tmp_path / "events").glob("*.avro")).unlink()
    find = judge_launch(any_inputs(), tmp_path)
    assert find is not None
    assert "events are not those of the summary" in find.rule


def test_the_oracle_sees_every_change_outside_the_output(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "here"
    (folder / "out").mkdir(parents=True)
    (folder / "input").write_text("x")
    before = listing(tmp_path)
    (folder / "out" / "new").write_text("y")
    assert judge_files(any_inputs(), tmp_path, folder, before) is None
    for path, text, rule in [
        (folder / "stray", "y", "outside"),
        (tmp_path / "stray", "y", "outside"),
        (folder / "input", "z", "changed"),
    ]:
        kept = path.read_text() if path.exists() else None
        path.write_text(text)
        find = judge_files(any_inputs(), tmp_path, folder, before)
        assert find is not None
        assert rule in find.rule
        path.unlink() if kept is None else path.write_text(kept)
    (folder / "input").unlink()
    find = judge_files(any_inputs(), tmp_path, folder, before)
    assert find is not None
    assert "removed" in find.rule
