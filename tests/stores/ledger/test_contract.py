"""The contract of every ledger, sentence by sentence of DeliveryLedger's docstrings."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from typing import Any, cast

import pytest

from schemas.delivery import (
    Claim,
    ClaimRequest,
    ClaimResult,
    DeliveryLedger,
    OnUnknown,
    Outcome,
    ResendLimit,
    Settlement,
)
from stores.ledger.sqlite_process import SqliteProcess
from stores.ledger.transitions import CANCEL

NOW, LEASE = 1_700_000_000_000, 60_000
LATER = NOW + LEASE  # the first moment at which a claim made NOW has lapsed
NOTHING = dict.fromkeys(["claimed", "lapsed", "accepted", "rejected", "expired", "unknown", "dead"], 0)
Connect = Callable[[], DeliveryLedger]


def digests(count: int, name: str = "event") -> list[str]:
    return [blake2b(f"{name}-{number}".encode(), digest_size=16).hexdigest() for number in range(count)]


A, B, C = digests(3)


def claim(
    ledger: DeliveryLedger, ids: Iterable[str], owner: str, now: int = NOW, on_unknown: OnUnknown = "resend"
) -> list[ClaimResult]:
    return ledger.claim(
        ClaimRequest([Claim(event_id, "batch-1") for event_id in ids], owner, now, now + LEASE, on_unknown)
    )


def settle(
    ledger: DeliveryLedger,
    ids: Iterable[str],
    owner: str,
    outcome: str = "accepted",
    now: int = NOW,
    receipt: bytes = b"",
) -> list[str]:
    return ledger.settle(owner, [Settlement(event_id, cast(Outcome, outcome), receipt) for event_id in ids], now)


def states(claim_results: Sequence[ClaimResult]) -> list[str]:
    return [result.state for result in claim_results]


def test_a_new_event_is_granted(ledger: DeliveryLedger) -> None:
    assert claim(ledger, [A, B], "one") == [ClaimResult(A, "granted"), ClaimResult(B, "granted")]


def test_what_another_owner_holds_is_taken_until_its_lease_ends(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    assert claim(ledger, [B, A], "two", LATER - 1) == [ClaimResult(B, "granted"), ClaimResult(A, "taken", until=LATER)]


def test_a_lapsed_claim_is_granted_again_under_resend(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    assert claim(ledger, [A], "two", LATER) == [ClaimResult(A, "regranted", resends=1)]
    assert claim(ledger, [A], "three", LATER) == [ClaimResult(A, "taken", until=LATER + LEASE)]


def test_a_lapsed_claim_is_granted_again_as_often_as_the_limit_says(ledger: DeliveryLedger) -> None:
    resends = []
    for turn in range(6):
        now = NOW + turn * LEASE
        (claim_result,) = ledger.claim(
            ClaimRequest([Claim(A, "b")], f"owner {turn}", now, now + LEASE, "resend", ResendLimit(3))
        )
        resends.append((claim_result.state, claim_result.resends))
    assert resends == [("granted", 0), *(("regranted", n) for n in (1, 2, 3)), ("lapsed", 3), ("lapsed", 3)]


def test_a_lapsed_claim_is_granted_again_as_long_after_the_first_claim_as_the_limit_says(
    ledger: DeliveryLedger,
) -> None:
    limit = ResendLimit(9, within_ms=2 * LEASE)
    results = [ledger.claim(ClaimRequest([Claim(A, "b")], f"owner {now}", now, now + 1, "resend", limit))[0] for now in
             (NOW, NOW + LEASE, NOW + 2 * LEASE, NOW + 2 * LEASE + 1)]  # fmt: skip
    assert states(results) == ["granted", "regranted", "regranted", "lapsed"]


def test_a_resend_that_is_released_is_not_counted(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    for turn in range(5):
        (claim_result,) = ledger.claim(
            ClaimRequest([Claim(A, "b")], f"attempt {turn}", LATER, LATER + 1, "resend", ResendLimit(1))
        )
        assert (claim_result.state, claim_result.resends) == ("regranted", 1)
        ledger.release(f"attempt {turn}", [A])


def test_a_lapsed_claim_is_nobodys_under_hold(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    for owner in ("two", "three", "one"):
        assert claim(ledger, [A], owner, LATER, "hold") == [ClaimResult(A, "lapsed")]


def test_a_lapsed_claim_of_who_cancels_is_as_if_it_had_not_been_made(ledger: DeliveryLedger) -> None:
    canceller = f"{CANCEL}1"
    claim(ledger, [A, B], canceller)
    assert states(claim(ledger, [A], "two")) == ["taken"]
    assert claim(ledger, [A], "two", LATER, "hold") == [ClaimResult(A, "granted")]
    assert settle(ledger, [A], canceller, "expired", LATER) == []
    assert claim(ledger, [B], f"{CANCEL}2", LATER, "hold") == [ClaimResult(B, "granted")]
    assert settle(ledger, [B], f"{CANCEL}2", "expired", LATER) == [B]


@pytest.mark.parametrize("outcome", ["accepted", "rejected", "expired", "unknown", "dead"])
def test_a_settled_event_is_over(ledger: DeliveryLedger, outcome: str) -> None:
    claim(ledger, [A], "one")
    settle(ledger, [A], "one", outcome)
    for owner in ("one", "two"):
        assert claim(ledger, [A], owner, 2 * LATER) == [ClaimResult(A, "settled", outcome)]


def test_an_event_twice_in_one_call_is_granted_once(ledger: DeliveryLedger) -> None:
    assert claim(ledger, [A, B, A], "one") == [
        ClaimResult(A, "granted"), ClaimResult(B, "granted"), ClaimResult(A, "taken", until=LATER),
    ]  # fmt: skip
    assert states(claim(ledger, [A, A], "two", LATER)) == ["regranted", "taken"]


def test_an_owner_that_asks_again_still_holds_its_claim_and_for_longer(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    assert claim(ledger, [A], "one", NOW + 5) == [ClaimResult(A, "granted")]
    assert claim(ledger, [A], "two", LATER) == [ClaimResult(A, "taken", until=LATER + 5)]
    assert states(claim(ledger, [A], "three", LATER + 5)) == ["regranted"]
    assert states(claim(ledger, [A], "three", LATER + 6)) == ["regranted"]


@pytest.mark.parametrize("count", [0, 1, 50, 1000])
def test_many_events_in_one_call(ledger: DeliveryLedger, count: int) -> None:
    ids = digests(count)
    assert claim(ledger, ids, "one") == [ClaimResult(event_id, "granted") for event_id in ids]
    assert states(claim(ledger, reversed(ids), "two")) == ["taken"] * count
    assert settle(ledger, ids, "one", receipt=b"r" * 200) == ids
    assert ledger.find(ids) == dict.fromkeys(ids, "accepted")
    assert ledger.counts(NOW) == NOTHING | {"accepted": count}
    assert len(ledger.unreported(2000)) == count
    ledger.report(ids)
    assert ledger.forget(NOW + 1) == count
    assert ledger.counts(NOW) == NOTHING


def test_each_claim_of_a_mixed_call_gets_its_own_result(ledger: DeliveryLedger) -> None:
    lapsed, taken, over, new = digests(4)
    claim(ledger, [lapsed], "one")
    claim(ledger, [taken], "two", LATER - 1)
    settle(ledger, [over], "three", "rejected")
    results = claim(ledger, [new, over, taken, lapsed], "four", LATER)
    assert states(results) == ["granted", "settled", "taken", "regranted"]


def test_a_lease_that_is_over_before_it_begins_is_a_bug(ledger: DeliveryLedger) -> None:
    with pytest.raises(ValueError, match="is over at"):
        ledger.claim(ClaimRequest([Claim(A, "batch-1")], "one", NOW, NOW, "hold"))


def test_an_event_without_an_entry_can_be_settled(ledger: DeliveryLedger) -> None:
    assert settle(ledger, [A], "one", "expired") == [A]
    assert ledger.find([A]) == {A: "expired"}


def test_an_owner_settles_its_claim_whether_it_lapsed_or_not(ledger: DeliveryLedger) -> None:
    claim(ledger, [A, B], "one")
    assert settle(ledger, [A], "one") == [A]
    assert settle(ledger, [B], "one", now=LATER + 1) == [B]


def test_a_lapsed_claim_is_settled_by_anyone_and_a_running_one_by_its_owner_only(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    assert settle(ledger, [A], "two", now=LATER - 1) == []
    assert ledger.find([A]) == {}
    assert settle(ledger, [A], "two", now=LATER) == [A]


@pytest.mark.parametrize("outcome", ["accepted", "rejected", "expired", "dead"])
def test_a_settled_event_stays_as_it_is(ledger: DeliveryLedger, outcome: str) -> None:
    claim(ledger, [A], "one")
    settle(ledger, [A], "one", outcome, receipt=b"first")
    for owner in ("one", "two"):
        for again in ("accepted", "unknown", "rejected"):
            assert settle(ledger, [A], owner, again, 2 * LATER, b"second") == []
    assert ledger.find([A]) == {A: outcome}
    assert ledger.unreported(9) == [(A, b"first")]


def test_a_late_answer_improves_an_unknown_of_its_owner_only(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    assert settle(ledger, [A], "one", "unknown", receipt=b"unknown") == [A]
    assert settle(ledger, [A], "two", "accepted", 2 * LATER) == []
    assert settle(ledger, [A], "one", "unknown", NOW + 1, b"again") == []
    assert ledger.unreported(9) == [(A, b"unknown")]
    ledger.report([A])
    assert settle(ledger, [A], "one", "accepted", NOW + 2, b"late") == [A]
    assert ledger.find([A]) == {A: "accepted"}
    assert ledger.unreported(9) == [(A, b"late")]
    assert settle(ledger, [A], "one", "rejected", NOW + 3) == []


def test_an_unknown_without_a_claim_has_no_owner(ledger: DeliveryLedger) -> None:
    settle(ledger, [A], "one", "unknown")
    assert settle(ledger, [A], "one", "accepted") == []


def test_only_what_changed_is_in_the_result_in_order_and_once(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    claim(ledger, [B], "two")
    assert settle(ledger, [C, B, A, A], "one") == [C, A]


def test_the_first_settlement_of_an_event_counts_but_for_an_unknown(ledger: DeliveryLedger) -> None:
    claim(ledger, [A, B], "one")
    twice = [Settlement(A, "accepted"), Settlement(A, "rejected"), Settlement(B, "unknown"), Settlement(B, "accepted")]
    assert ledger.settle("one", twice, NOW) == [A, B]
    assert ledger.find([A, B]) == {A: "accepted", B: "accepted"}


def test_a_zombie_changes_nothing_once_another_has_sent(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "zombie")
    assert states(claim(ledger, [A], "two", LATER)) == ["regranted"]
    assert settle(ledger, [A], "zombie", "rejected", LATER) == []
    assert settle(ledger, [A], "two", "accepted", LATER + 1, b"two") == [A]
    assert settle(ledger, [A], "zombie", "rejected", LATER + 2, b"zombie") == []
    ledger.release("zombie", [A])
    assert ledger.find([A]) == {A: "accepted"}
    assert ledger.unreported(9) == [(A, b"two")]


def test_a_late_answer_under_hold_is_heard_after_the_unknown(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "late", on_unknown="hold")
    assert states(claim(ledger, [A], "two", LATER, "hold")) == ["lapsed"]
    assert settle(ledger, [A], "two", "unknown", LATER) == [A]
    assert settle(ledger, [A], "two", "accepted", LATER) == []
    assert settle(ledger, [A], "late", "accepted", LATER + 1) == [A]
    assert ledger.find([A]) == {A: "accepted"}


def test_what_is_released_is_granted_anew(ledger: DeliveryLedger) -> None:
    claim(ledger, [A, B], "one")
    ledger.release("one", [A, B, C])
    assert ledger.counts(NOW) == NOTHING
    assert states(claim(ledger, [A, B], "two", on_unknown="hold")) == ["granted", "granted"]


def test_nothing_of_another_owner_and_nothing_settled_is_released(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    claim(ledger, [B], "two")
    settle(ledger, [B], "two", "unknown")
    ledger.release("two", [A, B])
    assert states(claim(ledger, [A, B], "three")) == ["taken", "settled"]


def test_releasing_a_second_chance_does_not_make_the_first_undone(ledger: DeliveryLedger) -> None:
    claim(ledger, [A], "one")
    claim(ledger, [A], "two", LATER)
    ledger.release("two", [A])
    assert states(claim(ledger, [A], "three", LATER, "hold")) == ["lapsed"]
    assert states(claim(ledger, [A], "three", LATER, "resend")) == ["regranted"]


def test_find_knows_the_settled_only(ledger: DeliveryLedger) -> None:
    claim(ledger, [A, B], "one")
    settle(ledger, [B], "one", "rejected")
    assert ledger.find([A, B, C, B]) == {B: "rejected"}
    assert ledger.find([]) == {}


def test_reopen_forgets_what_a_replay_may_send(ledger: DeliveryLedger) -> None:
    ids = dict(zip(["rejected", "unknown", "dead", "accepted", "expired"], digests(5), strict=True))
    for outcome, event_id in ids.items():
        settle(ledger, [event_id], "one", outcome, receipt=b"r")
    (claimed,) = digests(1, "claimed")
    claim(ledger, [claimed], "one")
    assert ledger.reopen([*ids.values(), claimed, "nobody's", ids["dead"]]) == 3
    assert ledger.find([*ids.values()]) == {ids["accepted"]: "accepted", ids["expired"]: "expired"}
    after = states(claim(ledger, [*ids.values(), claimed], "two"))
    assert after == ["granted"] * 3 + ["settled"] * 2 + ["taken"]
    assert {one for one, _ in ledger.unreported(9)} == {ids["accepted"], ids["expired"]}


def test_receipts_wait_oldest_first_until_they_are_reported(ledger: DeliveryLedger) -> None:
    for place, event_id in enumerate([B, A, C]):
        settle(ledger, [event_id], "one", "accepted", NOW + place, b"receipt %d" % place)
    settle(ledger, digests(9, "silent"), "one")
    assert ledger.unreported(2) == [(B, b"receipt 0"), (A, b"receipt 1")]
    ledger.report([B, C, "nobody's"])
    assert ledger.unreported(9) == [(A, b"receipt 1")]
    ledger.report([A, A])
    ledger.report([A])
    assert ledger.unreported(9) == []
    assert ledger.find([A, B, C]) == dict.fromkeys([A, B, C], "accepted")


def test_forget_drops_the_old_that_are_settled_and_reported(ledger: DeliveryLedger) -> None:
    old, silent, unreported, young, claimed = ids = digests(5)
    settle(ledger, [old, unreported], "one", receipt=b"r")
    settle(ledger, [silent], "one", "unknown")
    settle(ledger, [young], "one", now=NOW + 1)
    claim(ledger, [claimed], "one")
    ledger.report([old])
    assert ledger.forget(NOW) == 0
    assert ledger.forget(NOW + 1) == 2
    assert states(claim(ledger, ids, "two", LATER, "hold")) == ["granted", "granted", "settled", "settled", "lapsed"]


def test_counts_tell_every_state(ledger: DeliveryLedger) -> None:
    assert ledger.counts(NOW) == NOTHING
    ids = digests(8)
    claim(ledger, ids[:3], "one")
    claim(ledger, ids[3:4], "one", LATER)
    for outcome, event_id in zip(["accepted", "rejected", "expired", "unknown"], ids[4:], strict=True):
        settle(ledger, [event_id], "one", outcome)
    assert ledger.counts(LATER) == NOTHING | {
        "lapsed": 3, "claimed": 1, "accepted": 1, "rejected": 1, "expired": 1, "unknown": 1,
    }  # fmt: skip


@pytest.mark.parametrize("event_id", ["dead:topic/3/17", "a b/ü%~…", "x" * 32, A.upper(), f"~{A}", ".", "..", "__x__", "a\0b", "\ud800"])  # fmt: skip
def test_any_text_is_an_id(ledger: DeliveryLedger, event_id: str) -> None:
    if isinstance(ledger, SqliteProcess) and event_id == "\ud800":
        pytest.skip("no UTF-8, of which every event is made: test_sqlite_process has the result")
    ids = [event_id, A]
    assert states(claim(ledger, ids, "ow ner/ü")) == ["granted", "granted"]
    assert states(claim(ledger, ids, "two")) == ["taken", "taken"]
    assert settle(ledger, ids, "ow ner/ü", "dead", receipt=b"\0\xff") == ids
    assert sorted(ledger.unreported(9)) == sorted((event_id, b"\0\xff") for event_id in ids)
    assert ledger.reopen([event_id]) == 1
    assert ledger.find(ids) == {A: "dead"}


def test_a_cell_is_read_updated_and_written(ledger: DeliveryLedger) -> None:
    assert ledger.change("pace/ü", lambda old: (b"1", old)) is None
    assert ledger.change("pace/ü", lambda old: (b"", old)) == b"1"
    assert ledger.change("pace/ü", lambda old: (b"3", old)) == b""
    assert ledger.change("other", lambda old: (b"", old)) is None
    assert ledger.counts(NOW) == NOTHING


def test_a_cell_stays_as_it_is_when_the_update_fails(ledger: DeliveryLedger) -> None:
    ledger.change("pace", lambda old: (b"1", None))

    def fail(_: bytes | None) -> tuple[bytes, None]:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        ledger.change("pace", fail)
    assert ledger.change("pace", lambda old: (b"2", old)) == b"1"


def one_more(old: bytes | None) -> tuple[bytes, int]:
    number = int(old or b"0") + 1
    return str(number).encode(), number


def together(work: Callable[[int], Any], workers: int) -> list[Any]:
    """What each of some threads returned that began at the same moment."""
    barrier = threading.Barrier(workers)

    def begin(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(begin, range(workers)))


@pytest.mark.parametrize("shared", [True, False], ids=["one handle", "a handle each"])
def test_four_threads_count_and_lose_nothing(connect: Connect, ledger: DeliveryLedger, shared: bool) -> None:
    handles = [ledger if shared else connect() for _ in range(4)]
    got = together(lambda number: [handles[number].change("counter", one_more) for _ in range(10)], 4)
    assert sorted(number for numbers in got for number in numbers) == list(range(1, 41))


@pytest.mark.parametrize("shared", [True, False], ids=["one handle", "a handle each"])
def test_overlapping_claims_at_one_moment_grant_each_event_once(
    connect: Connect, ledger: DeliveryLedger, shared: bool
) -> None:
    handles = [ledger if shared else connect() for _ in range(4)]
    for turn in range(5):
        ids = digests(75, f"turn {turn}")
        shares = [ids[number * 8 :][:50] for number in range(4)]
        got = together(partial(_claim_share, handles, shares), 4)
        granted = Counter(
            result.event_id for claim_results in got for result in claim_results if result.state == "granted"
        )
        assert granted == Counter(ids[: 3 * 8 + 50])
        assert {result.state for claim_results in got for result in claim_results} <= {"granted", "taken"}


def _claim_share(handles: list[DeliveryLedger], shares: list[list[str]], number: int) -> list[ClaimResult]:
    return claim(handles[number], shares[number], f"worker {number}")


def test_a_ledger_travels_to_workers_and_closes_twice(make_ledger: Connect) -> None:
    ledger = pickle.loads(pickle.dumps(make_ledger()))
    ledger.close()
    ledger.open()
    ledger.open()
    assert states(claim(ledger, [A], "one")) == ["granted"]
    ledger.close()
    ledger.close()
    with pytest.raises(RuntimeError, match="not open"):
        claim(ledger, [A], "two")
    ledger.open()
    assert states(claim(ledger, [A], "two")) == ["taken"]
    ledger.close()
