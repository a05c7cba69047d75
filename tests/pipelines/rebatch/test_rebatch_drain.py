"""Drains on the built-in engine: of any size, in rounds; what cannot leave holds up nothing and is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.delivering import Delivery, any_events

from pipelines.rebatch import rounds
from runners.sandbox.process import Sandbox
from transforms.streaming.counters import Limit

pytestmark = pytest.mark.usefixtures("built_in")


@pytest.fixture
def delivery(tmp_path: Path, sandbox: Sandbox) -> Delivery:
    """Nothing yet, to the sandbox."""
    return Delivery(tmp_path, sandbox.url).configure()


@pytest.fixture
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Rounds of 100 messages, and the parts that were run."""
    monkeypatch.setattr(rounds, "ROUND", Limit(100, 1 << 20))
    monkeypatch.setattr(rounds, "_WAITING", Limit(50, 1 << 19))
    parts: list[Any] = []
    real = rounds.Rounds.__init__

    def noting(self: Any, source: str, folder: Path, readers: int, patience_s: float, run: Any) -> None:
        def note(part: Any) -> None:
            parts.append(part)
            run(part)

        real(self, source, folder, readers, patience_s, note)

    monkeypatch.setattr(rounds.Rounds, "__init__", noting)
    return parts


def test_sixty_thousand_events_are_drained_and_each_is_accepted_once(delivery: Delivery, sandbox: Sandbox) -> None:
    events = dict[str, Any]()
    for part in "abc":
        some = any_events(20_000, part)
        delivery.put(f"part-{part}", some)
        events |= some
    assert delivery.run("--drain", "--on=direct") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    summary = delivery.summary()
    assert {name: summary[name] for name in ("read", "accepted", "left_waiting", "missing")} == {
        "read": 60_000, "accepted": 60_000, "left_waiting": 0, "missing": 0,
    }  # fmt: skip
    assert delivery.outcomes() == dict.fromkeys(events, "accepted")


def test_a_paused_retailers_backlog_of_many_rounds_is_counted_and_holds_up_nobody(
    delivery: Delivery, sandbox: Sandbox, small_rounds: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    events = any_events(1_000)
    delivery.put("part-0", events)
    delivery.configure({"aldi": {"paused": True}})
    assert delivery.run("--drain", "--on=direct", "--patience=0.5") == 0
    others = {name for name, (_, told) in events.items() if told["retailer_id"] == "kroger"}
    assert sandbox.accepted() == dict.fromkeys(others, 1)
    summary = delivery.summary()
    assert (summary["read"], summary["accepted"], summary["left_waiting"], summary["missing"]) == (1_000, 500, 500, 0)
    assert "500 events were not delivered" in capsys.readouterr().out
    assert len([part for part in small_rounds if part.patience_s]) == 1  # its patience is waited for once
    assert not list((delivery.output / "waiting").iterdir())
    delivery.configure()
    assert delivery.run("--drain", "--on=direct") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)


def test_a_paced_retailer_is_waited_for_as_long_as_it_sends_on(
    delivery: Delivery, sandbox: Sandbox, small_rounds: list[Any]
) -> None:
    events = any_events(600)
    delivery.put("part-0", events)
    delivery.configure({"aldi": {"pace": {"per_second": 100, "burst": 50}}})
    assert delivery.run("--drain", "--on=direct", "--patience=5") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    summary = delivery.summary()
    assert (summary["read"], summary["accepted"], summary["left_waiting"], summary["missing"]) == (600, 600, 0, 0)


def test_repeats_in_later_rounds_are_stopped_by_the_ledger_and_counted(
    delivery: Delivery, sandbox: Sandbox, small_rounds: list[Any]
) -> None:
    events = any_events(150)
    delivery.put("part-0", events)
    delivery.put("part-1", events)
    assert delivery.run("--drain", "--on=direct") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    summary = delivery.summary()
    assert summary["read"] == 300
    assert summary["repeats"] + summary["already_settled"] == 150
    assert (summary["accepted"], summary["missing"]) == (150, 0)


def test_a_call_that_outlasts_its_round_is_concluded_in_a_later_one(
    delivery: Delivery, sandbox: Sandbox, small_rounds: list[Any]
) -> None:
    events = any_events(300)
    delivery.put("part-0", events)
    sandbox.script([{"match": {"workspace": "aldi"}, "first": 1, "answer": "slow", "seconds": 4}])
    assert delivery.run("--drain", "--on=direct") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert delivery.outcomes() == dict.fromkeys(events, "accepted")
    assert delivery.summary()["missing"] == 0


def test_large_bodies_make_rounds_of_few_messages(
    delivery: Delivery, sandbox: Sandbox, small_rounds: list[Any]
) -> None:
    events = any_events(60, properties={"text": "x" * 100_000})
    delivery.put("part-0", events)
    assert delivery.run("--drain", "--on=direct") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert len(small_rounds) >= 2  # 6 MB, of which a round of 1 MB reads one poll of 4 MB


@pytest.mark.parametrize(
    ("options", "told"),
    [((), "run `make engines`, or set CAMPAIGNS_PRISM"), (("--on=direct",), "give --drain")],
    ids=["without Prism", "on the built-in engine"],
)
def test_a_live_run_says_at_once_what_it_needs(
    options: tuple[str, ...], told: str, delivery: Delivery, capsys: pytest.CaptureFixture[str]
) -> None:
    assert delivery.run(*options) == 2
    assert told in capsys.readouterr().err
