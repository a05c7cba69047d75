"""The Firestore ledger: how many calls it makes, and how it retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.firestore_v1.services.firestore import FirestoreClient

from schemas.delivery import Claim, ClaimRequest, Settlement
from schemas.problems import JobError
from stores.ledger.firestore import ClaimCache, FirestoreLedger
from stores.ledger.firestore_documents import Stored

NOW, LATER = 1_700_000_000_000, 1_700_000_060_000
IDS = [f"{number:032x}" for number in range(50)]
CLAIMS = [Claim(event_id, "batch-1") for event_id in IDS]
SENT = [Settlement(event_id, "accepted", b"receipt") for event_id in IDS]


@pytest.fixture
def ledger(firestore_uri: str) -> Iterator[FirestoreLedger]:
    opened = FirestoreLedger("project-1", "(default)", firestore_uri.rpartition("/")[2], deadline_s=5)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each method of the client is called."""
    calls: Counter[str] = Counter()

    def count(name: str) -> None:
        real = getattr(FirestoreClient, name)

        def counted(client: Any, *args: Any, **kw: Any) -> Any:
            calls[name] += 1
            return real(client, *args, **kw)

        monkeypatch.setattr(FirestoreClient, name, counted)

    for name in ("commit", "batch_get_documents", "run_query", "run_aggregation_query"):
        count(name)
    return calls


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`fail(error, times, method, answer_lost=False)`: the next calls fail, before or after they took place."""

    def arrange(error: Exception, times: int = 1, method: str = "commit", answer_lost: bool = False) -> None:
        real, errors = getattr(FirestoreClient, method), [error] * times

        def failing(client: Any, *args: Any, **kw: Any) -> Any:
            if not errors:
                return real(client, *args, **kw)
            if answer_lost:
                real(client, *args, **kw)
            raise errors.pop()

        monkeypatch.setattr(FirestoreClient, method, failing)

    return arrange


def test_a_new_batch_costs_a_call_to_claim_and_a_call_to_settle(ledger: FirestoreLedger, calls: Counter[str]) -> None:
    assert {result.state for result in ledger.claim(ClaimRequest(CLAIMS, "one", NOW, LATER, "hold"))} == {"granted"}
    assert calls == {"commit": 1}
    assert ledger.settle("one", SENT, NOW) == IDS
    assert calls == {"commit": 2}


def test_settling_what_nobody_claimed_costs_a_call(ledger: FirestoreLedger, calls: Counter[str]) -> None:
    assert ledger.settle("one", [Settlement(event_id, "expired") for event_id in IDS], NOW) == IDS
    assert calls == {"commit": 1}


def test_a_release_costs_a_call(ledger: FirestoreLedger, calls: Counter[str]) -> None:
    ledger.claim(ClaimRequest(CLAIMS, "one", NOW, LATER, "hold"))
    ledger.release("one", IDS)
    assert calls == {"commit": 2}


def test_a_batch_that_overlaps_costs_a_read_and_a_call_for_the_rest(
    ledger: FirestoreLedger, calls: Counter[str]
) -> None:
    ledger.claim(ClaimRequest(CLAIMS[:10], "one", NOW, LATER, "hold"))
    calls.clear()
    states = Counter(result.state for result in ledger.claim(ClaimRequest(CLAIMS, "two", NOW, LATER, "hold")))
    assert states == {"taken": 10, "granted": 40}
    assert calls == {"commit": 2, "batch_get_documents": 1}


def test_another_process_settles_with_a_read(ledger: FirestoreLedger, firestore_uri: str, calls: Counter[str]) -> None:
    ledger.claim(ClaimRequest(CLAIMS, "one", NOW, LATER, "hold"))
    ledger._claims = ClaimCache()
    calls.clear()
    assert ledger.settle("one", SENT, NOW) == IDS
    assert calls == {"commit": 2, "batch_get_documents": 1}


def test_a_thousand_are_two_commits(ledger: FirestoreLedger, calls: Counter[str]) -> None:
    ledger.claim(ClaimRequest([Claim(f"{number:032x}", "b") for number in range(1000)], "one", NOW, LATER, "hold"))
    assert calls == {"commit": 2}


ERRORS = [
    exceptions.Aborted("contention"), exceptions.ServiceUnavailable("away"), exceptions.DeadlineExceeded("slow"),
    exceptions.InternalServerError("oh"), exceptions.ResourceExhausted("quota"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_transient_errors_are_retried(ledger: FirestoreLedger, fail: Callable[..., None], error: Exception) -> None:
    fail(error, 2)
    assert {result.state for result in ledger.claim(ClaimRequest(CLAIMS, "one", NOW, LATER, "hold"))} == {"granted"}
    fail(error, 2)
    assert ledger.settle("one", SENT, NOW) == IDS
    fail(error, 1, "batch_get_documents")
    assert len(ledger.find(IDS)) == 50
    fail(error, 1, "run_query")
    assert len(ledger.unreported(99)) == 50
    fail(error, 1, "run_aggregation_query")
    assert ledger.counts(NOW)["accepted"] == 50


def test_a_lost_answer_changes_no_result(ledger: FirestoreLedger, fail: Callable[..., None]) -> None:
    lost = exceptions.DeadlineExceeded("the answer was lost")
    fail(lost, answer_lost=True)
    assert {result.state for result in ledger.claim(ClaimRequest(CLAIMS, "one", NOW, LATER, "hold"))} == {"granted"}
    fail(lost, answer_lost=True)
    assert ledger.settle("one", [Settlement(event_id, "unknown", b"r") for event_id in IDS], NOW) == IDS
    fail(lost, answer_lost=True)
    ledger.report(IDS)
    assert ledger.unreported(9) == []
    fail(lost, answer_lost=True)
    assert ledger.reopen(IDS) == 50
    ledger.claim(ClaimRequest(CLAIMS, "two", NOW, LATER, "hold"))
    fail(lost, answer_lost=True)
    ledger.release("two", IDS)
    assert sum(ledger.counts(NOW).values()) == 0
    fail(lost, answer_lost=True)
    assert ledger.change("counter", lambda old: (b"1", old)) is None
    assert ledger.change("counter", lambda old: (b"2", old)) == b"1"


def test_a_conflict_after_a_lost_commit_is_decided_anew(
    ledger: FirestoreLedger, firestore_uri: str, fail: Callable[..., None]
) -> None:
    other = FirestoreLedger("project-1", "(default)", firestore_uri.rpartition("/")[2])
    other.open()
    other.claim(ClaimRequest(CLAIMS[:1], "other", NOW, LATER, "hold"))
    fail(exceptions.ServiceUnavailable("never arrived"))
    assert [result.state for result in ledger.claim(ClaimRequest(CLAIMS[:2], "one", NOW, LATER, "hold"))] == [
        "taken",
        "granted",
    ]
    other.close()


def test_an_unavailable_store_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    ledger = FirestoreLedger("project-1", "(default)", "ledger", deadline_s=0.3)
    ledger.open()
    for call in (lambda: ledger.claim(ClaimRequest(CLAIMS, "one", NOW, LATER, "hold")), lambda: ledger.find(IDS)):
        with pytest.raises(JobError, match=r"kept projects/project-1/databases/\(default\) away.*Check the network"):
            call()
    ledger.close()


@pytest.mark.parametrize(
    ("error", "todo"),
    [
        (exceptions.PermissionDenied("no"), "Give this account roles/datastore.user"),
        (exceptions.Unauthenticated("who"), "Log in"),
        (exceptions.NotFound("no database"), "Create the database"),
        (exceptions.InvalidArgument("what"), "Put it right"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_permanent_errors_are_reported_at_once(
    ledger: FirestoreLedger, fail: Callable[..., None], error: Exception, todo: str
) -> None:
    fail(error, 9, "batch_get_documents")
    with pytest.raises(JobError, match=todo):
        ledger.find(IDS)
    fail(error, 9)
    with pytest.raises(JobError, match=todo):
        ledger.claim(ClaimRequest(CLAIMS, "one", NOW, LATER, "hold"))


def test_firestore_drops_only_what_is_settled_and_reported(ledger: FirestoreLedger) -> None:
    ledger.claim(ClaimRequest(CLAIMS[:3], "one", NOW, LATER, "hold"))
    ledger.settle("one", [Settlement(IDS[0], "accepted", b"receipt"), Settlement(IDS[1], "accepted")], NOW)

    def doomed() -> list[str]:
        stored = ledger._documents.read(ledger._collection, IDS[:3])
        return [event_id for event_id in IDS[:3] if "forget_at" in stored[event_id].fields]

    assert doomed() == [IDS[1]]
    ledger.report(IDS[:1])
    assert doomed() == IDS[:2]


def test_only_the_newest_claims_are_cached() -> None:
    held = ClaimCache(limit=2)
    held.keep({name: Stored({}, b"", None) for name in "abc"})
    assert list(held.take("abc")) == ["b", "c"]
    assert held.take("abc") == {}
