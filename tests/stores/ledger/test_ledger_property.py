"""Any interleaving of owners and clock: the ledger agrees with a simple model, and no event is sent twice."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.delivery import Claim, ClaimRequest, DeliveryLedger, OnUnknown, Outcome, ResendLimit, Settlement
from stores.ledger.open import open_ledger

OWNERS, EVENTS, LEASE = ("a", "b", "c"), 4, 10
NO_LIMIT = ResendLimit(1_000, 1_000_000)


class Act(NamedTuple):
    """What one owner does to some events, after `wait` has passed."""

    verb: Literal["claim", "settle", "release"]
    owner: str
    events: list[int]
    wait: int
    on_unknown: OnUnknown
    outcome: Outcome


ACTS = st.builds(
    Act,
    st.sampled_from(["claim", "claim", "settle", "release"]),
    st.sampled_from(OWNERS),
    st.lists(st.integers(0, EVENTS - 1), min_size=1, max_size=EVENTS + 1),
    st.sampled_from([0, 0, 1, LEASE - 1, LEASE]),
    st.sampled_from(["resend", "hold"]),
    st.sampled_from(["accepted", "accepted", "unknown", "rejected"]),
)


@dataclass
class Told:
    """One event as the contract tells it."""

    holder: str | None = None
    until: int = 0
    doubtful: bool = False
    outcome: str | None = None

    def claim(self, act: Act, now: int) -> str:
        if self.outcome:
            return "settled"
        if self.holder and now < self.until and self.holder != act.owner:
            return "taken"
        if (self.holder and now >= self.until) or (self.doubtful and not self.holder):
            if act.on_unknown == "hold":
                return "lapsed"
            self.doubtful = True
        self.holder, self.until = act.owner, now + LEASE
        return "regranted" if self.doubtful else "granted"

    def settle(self, act: Act, now: int) -> bool:
        running = self.holder is not None and self.outcome is None and now < self.until
        improves = self.outcome == "unknown" and act.outcome != "unknown" and self.holder == act.owner
        if (self.outcome and not improves) or (running and self.holder != act.owner):
            return False
        self.outcome = act.outcome
        return True

    def release(self, act: Act) -> None:
        if self.holder == act.owner and not self.outcome:
            self.holder = None


@dataclass
class Sends:
    """Who may send what at the moment, and what was accepted; fails when the promise is broken."""

    held: dict[str, tuple[str, int]] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)

    def granted(self, event: str, owner: str, now: int) -> None:
        holder, until = self.held.get(event, (owner, 0))
        assert holder == owner or now >= until, "two owners may send between two lapses"
        assert event not in self.accepted
        self.held[event] = owner, now + LEASE

    def settled(self, event: str, outcome: str) -> None:
        assert event not in self.accepted, "settled after it was accepted"
        if outcome == "accepted":
            self.accepted.add(event)


def play(ledger: DeliveryLedger, acts: list[Act]) -> None:
    names = [uuid.uuid4().hex for _ in range(EVENTS)]
    models, sends, now = {name: Told() for name in names}, Sends(), 1_000
    for act in acts:
        now += act.wait
        events = [names[place] for place in act.events]
        once = list(dict.fromkeys(events))
        if act.verb == "claim":
            claim_results = ledger.claim(
                ClaimRequest(
                    [Claim(event, "batch") for event in events], act.owner, now, now + LEASE, act.on_unknown, NO_LIMIT
                )
            )
            first = {result.event_id: result for result in reversed(claim_results)}
            assert {one: first[one].state for one in once} == {one: models[one].claim(act, now) for one in once}
            may_send = [result.event_id for result in claim_results if result.state in ("granted", "regranted")]
            assert len(may_send) == len(set(may_send)), "twice in one call"
            for one in may_send:
                sends.granted(one, act.owner, now)
        elif act.verb == "settle":
            settled = ledger.settle(act.owner, [Settlement(event, act.outcome) for event in events], now)
            assert settled == [one for one in once if models[one].settle(act, now)]
            for one in settled:
                sends.settled(one, act.outcome)
        else:
            ledger.release(act.owner, events)
            for one in once:
                models[one].release(act)
                if sends.held.get(one, ("", 0))[0] == act.owner:
                    del sends.held[one]
        assert ledger.find(names) == {name: models[name].outcome for name in names if models[name].outcome}


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 300), ("firestore", 25)])
def test_any_interleaving_follows_the_contract(request: pytest.FixtureRequest, kind: str, examples: int) -> None:
    ledger = open_ledger(request.getfixturevalue(f"{kind}_uri"))
    ledger.open()

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(ACTS, max_size=25))
    def holds(acts: list[Act]) -> None:
        play(ledger, acts)

    holds()
    ledger.close()
