"""The fuzzer of inputs: 500 whole inputs, good and bad, through the command line; and that its oracle sees what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.factories import any_campaign
from support.launching import any_place

from bench.input_fuzz.hunt import Hunt, fuzz
from bench.input_fuzz.inputs import Facts, Inputs
from bench.input_fuzz.oracle import Find, judge_files, judge_launch, judge_run, listing
from bench.input_fuzz.tables import Table
from bench.input_fuzz.worker import Run

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = 500 if os.environ.get("CAMPAIGNS_ENGINE_TESTS") else 60
SEED = 13
"""The same inputs in every run, so that a change is to blame for a find; `make fuzz` takes a seed of its own."""
PROBLEM = "1 mistake in the input; nothing was run.\nwelcome.yaml:3  audience = x > 1\n    the customers have no such column\n"


@pytest.mark.timeout(3_600)
def test_every_whole_input_ends_with_sums_that_close_or_with_what_to_do() -> None:
    found = fuzz(EXAMPLES, SEED)
    assert not found["finds"], json.dumps(found["finds"], indent=2)
    assert found["examples"] == EXAMPLES
    assert found["ends"]["launch 0"] > EXAMPLES * 0.05
    assert found["ends"]["launch 2"] > EXAMPLES * 0.03
    assert found["bad_parts"]["nothing"] > EXAMPLES * 0.15


DESCRIBE = """
import hashlib
from bench.input_fuzz.inputs import described
from bench.input_fuzz.search import repeatable, use_inputs

def describe(inputs):
    text = described(inputs) + str(sorted(inputs.files().items()))
    print(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())

with repeatable():
    for start, number in %s:
        use_inputs(start, number, describe)
"""


def test_the_same_seed_and_number_give_the_same_inputs_in_every_process_and_order() -> None:
    def described(asked: list[tuple[int, int]], loaded: str, hash_seed: str) -> list[str]:
        run = subprocess.run(
            [sys.executable, "-c", loaded + DESCRIBE % asked],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return run.stdout.split()

    asked = [(7, number) for number in range(20)]
    once = described(asked, "", "1")
    assert len(set(once)) == len(asked)
    assert (
        described(
            asked[::-1], "import runners.cli.main, pipelines.launch.pipeline, schemas.campaigns.configuration", "2"
        )
        == once[::-1]
    )
    assert not set(described([(8, number) for number in range(5)], "", "1")) & set(once)


def test_the_same_seed_has_the_same_finds_whatever_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(_: Hunt, inputs: Inputs) -> Find | None:
        return Find(f"{len(inputs.campaigns)} campaigns", "no find") if not inputs.bad else None

    monkeypatch.setattr(Hunt, "judge", judged)

    def finds(workers: int, first: int, examples: int) -> dict[str, Any]:
        keep = tmp_path / str(workers)
        found: dict[str, Any] = fuzz(examples, SEED, first=first, workers=workers, keep=keep)["finds"]
        for find in found.values():
            assert Path(find.pop("folder"), "find.txt").read_text().splitlines()[1] == find["again"]
        return found

    both, alone = finds(2, 0, 12), finds(1, 0, 12)
    assert both == alone
    rule, find = min(both.items(), key=lambda item: item[1]["number"])
    assert find["again"] == f"python -m bench.input_fuzz --seed {SEED} --from {find['number']} --examples 1"
    assert finds(3, find["number"], 1) == {rule: find}


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
