"""The claims that a process made and has not settled yet: what their documents are, unless somebody changed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock

from stores.ledger.firestore_documents import Stored

LIMIT = 20_000


class Held:
    """Documents by key, the newest `limit` of them; safe for several threads. Forgetting one costs a read later."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._lock, self._documents = limit, Lock(), dict[str, Stored]()

    def keep(self, documents: Mapping[str, Stored]) -> None:
        """Take note of these."""
        with self._lock:
            for key, one in documents.items():
                self._documents.pop(key, None)
                self._documents[key] = one
            while len(self._documents) > self._limit:
                del self._documents[next(iter(self._documents))]

    def take(self, keys: Iterable[str]) -> dict[str, Stored]:
        """Those of the documents that are known; they are forgotten by it."""
        with self._lock:
            return {key: self._documents.pop(key) for key in keys if key in self._documents}
