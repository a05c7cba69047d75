"""Logs as JSON: one object a line, with what the line is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from pipelines.command_line.logs import configure_logs, logs_are_json, say


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    yield
    root.handlers = before


def test_a_line_is_one_json_object_with_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json")
    say("two\nlines", launch="l-1", counts={"read": 3})
    logging.getLogger("stores").warning("calls of %s fail", "store-1", extra={"retailer": "store-1", "batch": "b-1"})
    first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first["message"], first["level"], first["launch"], first["counts"]) == (
        "two\nlines",
        "info",
        "l-1",
        {"read": 3},
    )
    assert (second["message"], second["level"], second["retailer"], second["batch"]) == (
        "calls of store-1 fail",
        "warning",
        "store-1",
        "b-1",
    )
    assert first["time"].endswith("+00:00")


def test_a_traceback_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("stores").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: broken" in json.loads(line)["traceback"]


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("text")
    say("stopping")
    assert not logs_are_json()
    assert capsys.readouterr().err == "stopping\n"
