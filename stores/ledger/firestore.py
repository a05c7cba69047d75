"""The ledger of a cluster: one Firestore document per event, 50 new events claimed or settled in one call.

A document has `entry` (transitions.Entry in MessagePack), `outcome` once it is settled, and `queue`: its state,
a shard, and a time. The shard keeps the index of `queue` from growing at one end only, which Firestore limits to 500
writes a second. `forget_at` is for Firestore's TTL policy; docs/decisions/006 has the two commands that a
collection needs: the policy, and an index exemption for `forget_at`, which grows at its end too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any, TypeVar, get_args
from zlib import crc32

import grpc
import msgspec

from connectors.google_channel import open_google_channel
from schemas.delivery import ClaimRequest, ClaimResult, DeliveryLedger, Outcome, Settlement
from stores.ledger import transitions
from stores.ledger.firestore_documents import WRITES, Documents, Fields, Stored
from stores.ledger.identity import FORGOTTEN, note_forgotten
from stores.ledger.transitions import Changes, Entries, Entry, id_of, key_of

R = TypeVar("R")
T = TypeVar("T")
SHARDS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"  # 64: 32,000 events a second
KEEP = timedelta(days=35)
_CLAIMED, _RECEIPT, _OVER = "c", "r", "s"  # the first letter of `queue`
_END = "~"  # after all digits
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Entry).decode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ClaimCache:
    """The documents of claims that this process made and has not settled yet, by key: the newest `limit` of them. A
    miss costs a read. Safe for several threads."""

    def __init__(self, limit: int = 20_000) -> None:
        self._limit, self._lock, self._documents = limit, Lock(), dict[str, Stored]()

    def keep(self, documents: Mapping[str, Stored]) -> None:
        """Add documents."""
        with self._lock:
            for key, document in documents.items():
                self._documents.pop(key, None)
                self._documents[key] = document
            while len(self._documents) > self._limit:
                del self._documents[next(iter(self._documents))]

    def take(self, keys: Iterable[str]) -> dict[str, Stored]:
        """Remove and return the cached ones of these documents."""
        with self._lock:
            return {key: self._documents.pop(key) for key in keys if key in self._documents}


class FirestoreLedger(DeliveryLedger):
    """A DeliveryLedger in the collection COLLECTION of a database, its cells in COLLECTION-cells. Safe for several
    threads. At most 500 events are one atomic step, more are several of them, each event in one.

    Settled and reported entries are dropped by Firestore after 35 days. Raises JobError when Firestore refuses, or does
    not answer for `deadline_s` seconds. A change of a cell whose answer is lost may be made twice if another worker
    changed the same cell at that moment; nothing else is.
    """

    def __init__(self, project: str, database: str, collection: str, deadline_s: float = 60.0) -> None:
        self._arguments = project, database, collection, deadline_s
        self._database = f"projects/{project}/databases/{database}"
        self._collection, self._deadline_s = collection, deadline_s
        self._channel: grpc.Channel | None = None
        self._opened: Documents | None = None
        self._claims = ClaimCache()

    def __reduce__(self) -> tuple[type[FirestoreLedger], tuple[Any, ...]]:
        return FirestoreLedger, self._arguments

    def open(self) -> None:
        """Connect, lazily. Raises JobError when there are no Google credentials."""
        if self._opened is None:
            self._channel = open_google_channel("firestore", "datastore")
            self._opened = Documents(self._database, self._channel, self._deadline_s)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = self._opened = None

    def claim(self, request: ClaimRequest) -> list[ClaimResult]:
        results: dict[int, ClaimResult] = {}
        for ids in _parts(claim.event_id for claim in request.claims):
            places = [place for place, claim in enumerate(request.claims) if claim.event_id in ids]
            part = request._replace(claims=[request.claims[place] for place in places])
            decide = partial(transitions.grant, request=part)
            results.update(zip(places, self._step(ids, decide, known={}), strict=True))
        return [results[place] for place in range(len(request.claims))]

    def settle(self, owner: str, settlements: Sequence[Settlement], now: int) -> list[str]:
        return self._settle(settlements, partial(transitions.settle, owner=owner, now=now), claimed=True)

    def reconcile(self, settlements: Sequence[Settlement], now: int) -> list[str]:
        return self._settle(settlements, partial(transitions.reconcile, now=now), claimed=False)

    def release(self, owner: str, event_ids: Sequence[str]) -> None:
        for ids in _parts(event_ids):
            known = self._claims.take(map(key_of, ids))

            decide = partial(_changed, partial(transitions.release, owner=owner, event_ids=ids))
            self._step(ids, decide, known if len(known) == len(ids) else None)

    def find(self, event_ids: Sequence[str]) -> dict[str, str]:
        documents = self._documents.read(self._collection, map(key_of, dict.fromkeys(event_ids))) if event_ids else {}
        return {id_of(key): doc.fields["outcome"] for key, doc in documents.items() if "outcome" in doc.fields}

    def reopen(self, event_ids: Sequence[str]) -> int:
        return sum(self._drop(ids, lambda entry: entry.outcome in transitions.REOPENED) for ids in _parts(event_ids))

    def unreported(self, limit: int) -> list[tuple[str, bytes]]:
        """Event ids and receipts that are not yet reported, oldest first; one query per shard."""
        waiting = (
            (entry.settled_at, id_of(key), entry.receipt)
            for shard in SHARDS
            for key, entry in _entries(self._due(_RECEIPT, shard, _END, limit)).items()
        )
        return [(event_id, receipt) for _, event_id, receipt in heapq.nsmallest(limit, waiting)]

    def report(self, event_ids: Sequence[str]) -> None:
        def decide(entries: Entries) -> tuple[None, Entries]:
            waiting = {event_id: entry for event_id, entry in entries.items() if entry.receipt}
            return None, {name: msgspec.structs.replace(entry, receipt=b"") for name, entry in waiting.items()}

        for ids in _parts(event_ids):
            self._step(ids, decide)

    def forget(self, before: int) -> int:
        """Drop the entries that were settled, and reported where they have a receipt, before a time; 500 at a time."""
        self.change(FORGOTTEN, partial(note_forgotten, before=before))
        dropped = 0
        for shard in SHARDS:
            while due := self._due(_OVER, shard, _time(before), WRITES):
                ids = dict.fromkeys(map(id_of, due))
                dropped += self._drop(ids, lambda entry: _is_over(entry) and entry.settled_at < before, due)
        return dropped

    def counts(self, now: int) -> dict[str, int]:
        """Entries by state; queries that cost one read per 1,000 entries."""
        count, name = self._documents.count, self._collection
        outcomes = {outcome: count(name, "outcome", outcome, outcome + "\0") for outcome in get_args(Outcome)}
        starts = [f"{_CLAIMED}{shard}" for shard in SHARDS]
        lapsed = sum(count(name, "queue", start, start + _time(now + 1)) for start in starts)
        claimed = count(name, "queue", _CLAIMED, _CLAIMED + _END) - lapsed
        return {"claimed": claimed, "lapsed": lapsed, **outcomes}

    def change(self, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
        """Read, update and write a small named value; repeated on a conflict with another worker."""
        key = key_of(cell)

        def decide(stored: Mapping[str, Stored]) -> tuple[T, Mapping[str, Fields]]:
            value, result = update(stored[key].fields["value"] if key in stored else None)
            return result, {key: {"value": value}}

        return self._documents.step(f"{self._collection}-cells", [key], decide).result

    def _settle(
        self, settlements: Sequence[Settlement], transition: Callable[..., dict[str, Entry]], *, claimed: bool
    ) -> list[str]:
        """The ids that a transition settles. Of events that were `claimed` the cache may have the documents."""
        settled: set[str] = set()
        for ids in _parts(end.event_id for end in settlements):
            part = [end for end in settlements if end.event_id in ids]
            decide = partial(_changed, partial(transition, settlements=part))
            settled.update(self._step(ids, decide, self._claims.take(map(key_of, ids)) if claimed else None))
        return [event_id for event_id in dict.fromkeys(end.event_id for end in settlements) if event_id in settled]

    @property
    def _documents(self) -> Documents:
        if self._opened is None:
            raise RuntimeError("the ledger is not open")
        return self._opened

    def _due(self, kind: str, shard: str, end: str, limit: int) -> dict[str, Stored]:
        start = f"{kind}{shard}"
        return self._documents.query(self._collection, "queue", start, start + end, limit)

    def _drop(
        self, ids: Mapping[str, None], is_dropped: Callable[[Entry], bool], known: Mapping[str, Stored] | None = None
    ) -> int:
        def decide(entries: Entries) -> tuple[int, Mapping[str, None]]:
            dropped = dict.fromkeys(event_id for event_id, entry in entries.items() if is_dropped(entry))
            return len(dropped), dropped

        return self._step(ids, decide, known)

    def _step(
        self,
        ids: Mapping[str, None],
        decide: Callable[[Entries], tuple[R, Changes]],
        known: Mapping[str, Stored] | None = None,
    ) -> R:
        """Decide on entries and write them; the claims among them are cached for their settlement."""

        def decide_documents(stored: Mapping[str, Stored]) -> tuple[R, Mapping[str, Fields | None]]:
            result, changes = decide({id_of(key): entry for key, entry in _entries(stored).items()})
            return result, {
                key_of(event_id): self._fields(event_id, entry) if entry else None
                for event_id, entry in changes.items()
            }

        done = self._documents.step(self._collection, map(key_of, ids), decide_documents, known)
        self._claims.keep({key: doc for key, doc in done.written.items() if "outcome" not in doc.fields})
        return done.result

    def _fields(self, event_id: str, entry: Entry) -> Fields:
        fields: dict[str, Any] = {"entry": _encode(entry)}
        shard = SHARDS[crc32(event_id.encode("utf-8", "surrogatepass")) % len(SHARDS)]
        if entry.outcome is None:
            return fields | {"queue": f"{_CLAIMED}{shard}{_time(entry.lease_until)}"}
        fields |= {"outcome": entry.outcome}
        if not _is_over(entry):
            return fields | {"queue": f"{_RECEIPT}{shard}{_time(entry.settled_at)}"}
        forget_at = _EPOCH + timedelta(milliseconds=entry.settled_at) + KEEP
        return fields | {"queue": f"{_OVER}{shard}{_time(entry.settled_at)}", "forget_at": forget_at}


def _parts(event_ids: Iterable[str]) -> Iterator[dict[str, None]]:
    """The ids, each once, in parts that fit a commit."""
    ids = iter(dict.fromkeys(event_ids))
    while part := dict.fromkeys(islice(ids, WRITES)):
        yield part


def _changed(transition: Callable[[Entries], Changes], entries: Entries) -> tuple[list[str], Changes]:
    changes = transition(entries)
    return list(changes), changes


def _entries(stored: Mapping[str, Stored]) -> dict[str, Entry]:
    return {key: _decode(document.fields["entry"]) for key, document in stored.items()}


def _is_over(entry: Entry) -> bool:
    return entry.outcome is not None and not entry.receipt


def _time(moment: int) -> str:
    """Milliseconds as text that sorts as they do."""
    return f"{moment:015d}"
