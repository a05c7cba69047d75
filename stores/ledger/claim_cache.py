"""A cache of the documents of claims that this process made and has not settled yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock

from stores.ledger.firestore_documents import Stored

LIMIT = 20_000


class ClaimCache:
    """Documents by key, the newest `limit` of them; safe for several threads. A miss costs a read."""

    def __init__(self, limit: int = LIMIT) -> None:
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
