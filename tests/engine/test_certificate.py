"""The crash certificate, small: rebatch is killed with -9 and loses nothing and sends nothing twice."""

from __future__ import annotations

import pytest

from bench.certificate import Sent, certify, make, sound

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(("source", "on_unknown"), [("pubsub", "resend"), ("file", "hold")])
def test_a_job_that_is_killed_again_and_again_is_sound(
    source: str, on_unknown: str, prism_engine: str, pubsub_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_host)  # the certificate has an emulator of its own
    found = certify(source, on_unknown, 3000, 4, seed=7, longest_hold_s=8.0, longest_life_s=6.0)
    assert sound(found), found
    assert found["kills"] >= 1
    assert found["stops"] == {"interrupt": 1, "group stop": 1}
    assert found["different_events"] == sum(found[name] for name in ("accepted", "rejected", "expired", "unknown"))
    assert found["expired"] > 0
    assert found["malformed"] > 0
    assert found["accepted"] > 2000


def test_what_goes_in_has_something_of_everything_and_is_the_same_again() -> None:
    sent = make(3000, seed=7, malformed=True)
    assert len(sent.messages) == 3000 == len(sent.everyone) + sent.malformed + sent.repeats
    assert min(len(sent.good), len(sent.expired), len(sent.soon), sent.malformed, sent.repeats) > 0
    assert ids(make(3000, seed=7, malformed=True)) == ids(sent) != ids(make(3000, seed=8, malformed=True))


def ids(sent: Sent) -> list[set[str]]:
    return [sent.good, sent.expired, sent.refused]
