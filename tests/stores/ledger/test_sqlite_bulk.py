"""The bulk statements return and write the same as the transitions for each event."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.delivery import Claim, ClaimRequest, OnUnknown, Outcome, Settlement
from stores.ledger import sqlite
from stores.ledger.sqlite import SqliteLedger

IDS = [f"{number:032x}" for number in range(5)] + ["dead:1", "F" * 32]
TABLES = ("claims", "settled", "receipts")
QUICK = {"claim_new": False, "settle_own": False, "find_all": None, "report_all": False}


class Act(NamedTuple):
    """What is done to some events, after `wait` has passed."""

    verb: Literal["claim", "settle", "release", "report", "reopen", "forget"]
    owner: str
    events: list[str]
    wait: int
    on_unknown: OnUnknown
    outcome: Outcome
    receipts: list[bytes]


ACTS = st.builds(
    Act,
    st.sampled_from(["claim"] * 4 + ["settle"] * 4 + ["release", "report", "reopen", "forget"]),
    st.sampled_from(["0a" * 16, "0b" * 16, "host/1"]),
    st.lists(st.sampled_from(IDS), max_size=6) | st.just(IDS[:3]),
    st.sampled_from([0, 0, 1, 10]),
    st.sampled_from(["resend", "hold"]),
    st.sampled_from(["accepted", "accepted", "unknown", "rejected", "dead"]),
    st.lists(st.binary(max_size=3), min_size=6, max_size=6),
)


@contextmanager
def slowly() -> Any:
    """Without the quick statements."""
    with pytest.MonkeyPatch.context() as patch:
        for name, nothing in QUICK.items():
            patch.setattr(sqlite, name, lambda *_, nothing=nothing: nothing)
        yield


def do(ledger: SqliteLedger, act: Act, now: int) -> Any:
    """What the ledger says to an act."""
    if act.verb == "claim":
        claims = [Claim(one, uuid.UUID(int=place).hex) for place, one in enumerate(act.events)]
        return ledger.claim(ClaimRequest(claims, act.owner, now, now + 10, act.on_unknown))
    if act.verb == "settle":
        ends = [Settlement(one, act.outcome, act.receipts[place]) for place, one in enumerate(act.events)]
        return ledger.settle(act.owner, ends, now)
    if act.verb == "release":
        return ledger.release(act.owner, act.events)
    if act.verb == "report":
        return ledger.report(act.events)
    return ledger.reopen(act.events) if act.verb == "reopen" else ledger.forget(now - 5)


def rows(path: Path) -> list[Any]:
    """All that stands in the file."""
    with closing(sqlite3.connect(path)) as con:
        return [con.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES]  # noqa: S608


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ACTS, max_size=12))
def test_bulk_and_single_statements_return_and_write_the_same(tmp_path: Path, acts: list[Act]) -> None:
    paths = [tmp_path / f"{uuid.uuid4().hex}.db" for _ in range(2)]
    quick, slow = (SqliteLedger(str(path)) for path in paths)
    quick.open()
    slow.open()
    now = 1_000
    for act in acts:
        now += act.wait
        results, outcomes = do(quick, act, now), quick.find(act.events)
        with slowly():
            assert do(slow, act, now) == results
            assert slow.find(act.events) == outcomes
        assert rows(paths[0]) == rows(paths[1])
    assert quick.unreported(10) == slow.unreported(10)
    quick.close()
    slow.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Which quick statements were asked, and whether they did it."""
    asked: list[tuple[str, bool]] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any) -> Any:
            said = real(*args)
            asked.append((name, said is not None and said is not False))
            return said

        return ask

    for name in QUICK:
        monkeypatch.setattr(sqlite, name, watched(name, getattr(sqlite, name)))
    return asked


@pytest.mark.parametrize(
    ("acts", "quick"),
    [
        (["claim 0 1 2"], True),
        (["claim 0 1 2", "settle 0 1 2"], True),
        (["claim 0 1", "claim 1 2"], False),
        (["claim 0 0"], False),
        (["claim 0", "settle 0", "claim 0 1"], False),
        (["settle 0"], False),
        (["claim 0 1", "settle 1 1"], False),
        (["claim 0", "claim 1 b", "settle 0 1"], False),
        (["claim 5"], False),
        (["claim"], False),
    ],
)
def test_only_all_new_or_all_own_events_are_written_in_bulk(
    tmp_path: Path, calls: list[tuple[str, bool]], acts: list[str], quick: bool
) -> None:
    with closing(SqliteLedger(str(tmp_path / "ledger.db"))) as ledger:
        ledger.open()
        for text in acts:
            verb, *words = text.split()
            events = [IDS[int(word)] for word in words if word.isdigit()]
            owner = "0b" * 16 if "b" in words else "0a" * 16
            do(ledger, Act(verb, owner, events, 0, "resend", "accepted", [b"r"] * 6), 1_000)  # type: ignore[arg-type]
    assert calls[-1][1] is quick


def test_a_thousand_events_and_their_receipts_are_written_unchanged(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=number << 90).hex for number in range(1_000)]
    receipts = {one: one.encode() * (place % 3) for place, one in enumerate(ids)}
    with closing(SqliteLedger(str(tmp_path / "ledger.db"))) as ledger:
        ledger.open()
        said = ledger.claim(
            ClaimRequest([Claim(event_id, "0c" * 16) for event_id in ids], "0a" * 16, 1_000, 1_010, "resend")
        )
        assert {one.state for one in said} == {"granted"}
        assert (
            ledger.settle("0a" * 16, [Settlement(event_id, "accepted", receipts[event_id]) for event_id in ids], 1_001)
            == ids
        )
        assert ledger.find(ids) == dict.fromkeys(ids, "accepted")
        assert dict(ledger.unreported(2_000)) == {one: data for one, data in receipts.items() if data}
        ledger.report(ids)
        assert ledger.unreported(2_000) == []
