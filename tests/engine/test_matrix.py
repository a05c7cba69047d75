"""The same answer everywhere: launch and rebatch of the sample on each engine, through each transport."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.matrix import TRANSPORTS, Answer, answer

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("everywhere")]


def test_the_sample_has_something_of_everything(expected: Answer) -> None:
    assert len(expected.events) > 1_000
    assert expected.outcomes == dict.fromkeys(expected.events, "accepted")
    for name in ("campaign_id", "retailer_id", "channel"):
        assert len({event[name] for event in expected.events.values()}) > 2


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("engine", ["direct", "prism"])
def test_an_engine_gives_the_same_answer(
    engine: str, transport: str, sample: Path, expected: Answer, tmp_path: Path, kafka_host: str
) -> None:
    assert answer(sample, tmp_path, transport, [f"--on={engine}"], kafka_host) == expected
