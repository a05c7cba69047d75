"""How a mistake is shown: one form, whatever stands in the value."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest
from support.factories import any_campaign, any_folder

from schemas.campaigns.configuration import load_configuration
from schemas.problems import CommandError, InputError, JobError, Problem, describe_error


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines\x00", r"two\nlines\x00"),
        ("right\u202eleft", r"right\u202eleft"),
        ("half \ud800", r"half \ud800"),
        ("Grüße, 日本", "Grüße, 日本"),
    ],
)
def test_what_cannot_be_seen_on_a_terminal_is_escaped(value: str, shown: str) -> None:
    text = str(InputError([Problem(f"{value}.yaml", value, value, f"do this\n  {value!r:.0}^", 3)]))
    assert text.splitlines()[1:] == [f"{shown}.yaml:3  {shown} = {shown}", "    do this", "  ^"]
    text.encode()


def test_a_value_of_20_000_letters_fills_no_terminal() -> None:
    text = str(Problem("welcome.yaml", "id", "a" * 20_000, "there is none of the name " + "a" * 20_000))
    assert len(text) < 5_000
    assert text.startswith("welcome.yaml  id = aaa")


@pytest.mark.parametrize("name", ["a" * 20_000, "a\x00b"], ids=["too long", "with a NUL"])
def test_a_name_that_no_file_can_have_is_a_mistake(tmp_path: Path, name: str) -> None:
    any_folder(tmp_path, any_campaign(audience={"list": name}))
    _, problems = load_configuration(tmp_path)
    assert any("is no name of a file" in problem.fix for problem in problems)


ERRORS = [
    JobError("The ledger has gone\nwhile the job ran", 'Put it "back"'),
    JobError("no room"),
    InputError([Problem("welcome.yaml", "id", "grün", "use plain letters", 3)]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:10])
def test_an_error_keeps_its_kind_and_message_in_the_text_of_another(error: CommandError) -> None:
    described = describe_error(error)
    assert described == (error.kind, str(error))
    assert describe_error(pickle.loads(pickle.dumps(error))) == described
    text = "".join(traceback.format_exception(error))
    assert describe_error(RuntimeError(f"failed in state FAILED: {text}\n [while running 'Step']")) == described


def test_a_bug_has_no_kind() -> None:
    assert describe_error(ValueError("JobError: it only looks like one")) is None
    assert describe_error(ValueError('campaigns-error {"kind": "other"}')) is None
