"""How a command ends: one exit code and one message for each kind of error, whichever process raised it."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.command_line.exit_codes import Ending, exit_code
from pipelines.engines.choose import choose_batch_engine
from pipelines.engines.presets import BUILT_IN, PRISM
from schemas.problems import CommandError, InputError, JobError, Problem

ERRORS: list[tuple[CommandError, int, str]] = [
    (JobError("The disk is full", "Free some space"), 1, "stopped: The disk is full. Free some space"),
    (InputError([Problem("list.csv", "id", "", "give it", 2)]), 2, "list.csv:2  id = "),
]


def fails(error: Exception) -> Any:
    def fail() -> int:
        raise error

    return fail


@pytest.mark.parametrize(("error", "code", "text"), ERRORS, ids=["job", "input"])
def test_an_error_is_printed_and_its_kind_is_the_exit_code(
    error: CommandError, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(fails(error), "stopped: ") == code
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("runner", [BUILT_IN, pytest.param(PRISM, marks=pytest.mark.engine)])
@pytest.mark.parametrize(("error", "code", "text"), ERRORS, ids=["job", "input"])
def test_an_error_of_a_worker_is_told_like_one_of_this_process(
    runner: str, error: CommandError, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(row: int) -> int:
        raise error

    def run() -> Ending:
        with beam.Pipeline(options=choose_batch_engine(PipelineOptions([f"--runner={runner}"]))) as p:
            _ = p | beam.Create([1]) | "Fail" >> beam.Map(fail)
        return Ending.DONE

    assert exit_code(run, "stopped: ") == code
    assert text in capsys.readouterr().err


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        exit_code(fails(KeyError("bug")))


@pytest.mark.parametrize(("ending", "code"), [(Ending.DONE, 0), (Ending.CHECK_FAILED, 1), (Ending.WARNINGS, 2)])
def test_a_command_without_an_error_says_how_it_ended(ending: Ending, code: int) -> None:
    assert exit_code(lambda: ending) == code
