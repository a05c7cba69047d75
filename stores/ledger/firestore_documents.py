"""Firestore documents that change together: read, decide, and commit if no other worker changed them in between.

A commit is atomic, and each of its writes names the version of the document that it was decided on. A commit with a
conflict changes nothing and is decided anew. Whether a commit whose answer was lost took place is seen by its token.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import grpc
from google.api_core import exceptions as google_errors
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports.grpc import FirestoreGrpcTransport

from schemas.problems import JobError

R = TypeVar("R")
Fields: TypeAlias = Mapping[str, Any]
"""Name to bytes, str, or a datetime in UTC."""
WRITES = 500  # in one commit

_Write, _Value, _Request = types.Write.pb(), types.Value.pb(), types.CommitRequest.pb()
_COMMIT_TOKEN = "call"
_CALL_S, _FIRST_WAIT_S, _LONGEST_WAIT_S = 10.0, 0.02, 5.0
_CONFLICTS = (
    google_errors.AlreadyExists,
    google_errors.FailedPrecondition,
    google_errors.NotFound,
    google_errors.Aborted,
)
_RETRIED = (
    *(google_errors.Aborted, google_errors.Cancelled, google_errors.GatewayTimeout, google_errors.InternalServerError),
    *(google_errors.ResourceExhausted, google_errors.ServiceUnavailable, google_errors.Unknown),
)
_AGAIN = "then run the same command again: nothing that was claimed or settled is lost"
_TODO = {
    google_errors.NotFound: "Create the database, `gcloud firestore databases create`",
    google_errors.PermissionDenied: "Give this account roles/datastore.user on the project",
    google_errors.Unauthenticated: "Log in, `gcloud auth application-default login`",
}


class Stored(NamedTuple):
    """A document: its fields, the token of the commit that wrote it, and its version."""

    fields: Fields
    commit_token: bytes
    version: Any


class Done(NamedTuple, Generic[R]):
    """The result of a step, and the documents that it wrote, if their versions are known."""

    result: R
    written: Mapping[str, Stored]


Changes: TypeAlias = Mapping[str, Fields | None]
"""Documents to write, or to delete (None), by key."""
Decide: TypeAlias = Callable[[Mapping[str, Stored]], tuple[R, Changes]]
"""From the documents to a result and the changes. May run several times."""


class Documents:
    """The documents of a collection by key; safe for several threads. A call that fails is retried with back-off for
    `deadline_s` seconds; then, or when a retry cannot help, it raises JobError."""

    def __init__(self, database: str, channel: grpc.Channel, deadline_s: float) -> None:
        self._database, self._deadline_s = database, deadline_s
        self._root = f"{database}/documents"
        self._client = FirestoreClient(transport=FirestoreGrpcTransport(channel=channel))
        self._options = {"retry": None, "timeout": min(_CALL_S, deadline_s)}

    def step(
        self, collection: str, keys: Iterable[str], decide: Decide[R], known: Mapping[str, Stored] | None = None
    ) -> Done[R]:
        """Decide on these documents and write the changes, in one atomic commit of at most 500. `known` saves the first
        read: the documents as they are believed to be (one that it lacks, to be absent)."""
        retries, lost = _Retries(self._database, self._deadline_s), dict[bytes, tuple[R, Changes]]()
        names = self._names(collection, keys)
        while True:
            try:
                stored = self._read(names) if known is None else known
            except GoogleAPICallError as error:
                retries.wait_or_raise(error)
                continue
            for commit_token, (result, changes) in lost.items():
                if _was_committed(changes, stored, commit_token):
                    return Done(result, {})
            result, changes = decide(stored)
            commit_token, known = os.urandom(8), None
            try:
                return Done(result, self._commit(collection, changes, stored, commit_token) if changes else {})
            except _CONFLICTS as error:
                retries.wait_or_raise(error, conflict=True)
            except GoogleAPICallError as error:
                retries.wait_or_raise(error)
                lost[commit_token] = result, changes

    def read(self, collection: str, keys: Iterable[str]) -> dict[str, Stored]:
        """The documents that exist."""
        names = self._names(collection, keys)
        return self._retried(lambda: self._read(names))

    def query(self, collection: str, field: str, start: str, end: str, limit: int) -> dict[str, Stored]:
        """The first documents whose field is in start <= field < end, in its order."""
        query = _between(collection, field, start, end)
        query.order_by = [types.StructuredQuery.Order(field={"field_path": field})]
        query.limit = limit
        request = types.RunQueryRequest(parent=self._root, structured_query=query)
        return self._retried(
            lambda: dict(
                _stored(answer._pb.document)
                for answer in self._client.run_query(request=request, **self._options)
                if "document" in answer
            )
        )

    def count(self, collection: str, field: str, start: str, end: str) -> int:
        """How many documents have start <= field < end."""
        count = types.StructuredAggregationQuery.Aggregation(count={}, alias="n")
        query = types.StructuredAggregationQuery(
            structured_query=_between(collection, field, start, end), aggregations=[count]
        )
        request = types.RunAggregationQueryRequest(parent=self._root, structured_aggregation_query=query)

        def run() -> int:
            answers = self._client.run_aggregation_query(request=request, **self._options)
            return sum(answer.result.aggregate_fields["n"].integer_value for answer in answers)

        return self._retried(run)

    def _names(self, collection: str, keys: Iterable[str]) -> list[str]:
        return [f"{self._root}/{collection}/{key}" for key in keys]

    def _read(self, names: list[str]) -> dict[str, Stored]:
        request = types.BatchGetDocumentsRequest(database=self._database, documents=names)
        answers = self._client.batch_get_documents(request=request, **self._options)
        return dict(_stored(answer._pb.found) for answer in answers if "found" in answer)

    def _commit(
        self, collection: str, changes: Changes, stored: Mapping[str, Stored], commit_token: bytes
    ) -> dict[str, Stored]:
        writes = list(_writes(f"{self._root}/{collection}/", changes, stored, commit_token))
        request = types.CommitRequest.wrap(_Request(database=self._database, writes=writes))
        results = self._client.commit(request=request, **self._options)._pb.write_results
        pairs = zip(changes.items(), results, strict=True)
        return {
            key: Stored(fields, commit_token, done.update_time) for (key, fields), done in pairs if fields is not None
        }

    def _retried(self, work: Callable[[], R]) -> R:
        retries = _Retries(self._database, self._deadline_s)
        while True:
            try:
                return work()
            except GoogleAPICallError as error:
                retries.wait_or_raise(error)


class _Retries:
    """The retries of one step."""

    def __init__(self, database: str, deadline_s: float) -> None:
        self._database, self._deadline_s = database, deadline_s
        self._begin, self._wait = time.monotonic(), _FIRST_WAIT_S

    def wait_or_raise(self, error: GoogleAPICallError, conflict: bool = False) -> None:
        """Waits before a retry, or raises JobError when a retry cannot help or the deadline has passed."""
        if not conflict and not isinstance(error, _RETRIED):
            todo = next((todo for kind, todo in _TODO.items() if isinstance(error, kind)), "Put it right")
            raise JobError(f"Firestore refuses {self._database} ({error})", f"{todo}, {_AGAIN}") from error
        waited = time.monotonic() - self._begin
        if waited >= self._deadline_s:
            happened = f"Firestore kept {self._database} away for {waited:.0f} s ({error})"
            raise JobError(happened, f"Check the network, the project's quotas and status, {_AGAIN}") from error
        time.sleep(random.uniform(0, self._wait) if conflict else random.uniform(self._wait / 2, self._wait))
        self._wait = min(2 * self._wait, _LONGEST_WAIT_S)


def _was_committed(changes: Changes, stored: Mapping[str, Stored], commit_token: bytes) -> bool:
    """Whether a commit without an answer took place: its token is there, or all that it deleted is gone."""
    written = [key for key, fields in changes.items() if fields is not None]
    if written:
        return any(key in stored and stored[key].commit_token == commit_token for key in written)
    return not any(key in stored for key in changes)


def _writes(prefix: str, changes: Changes, stored: Mapping[str, Stored], commit_token: bytes) -> Iterator[Any]:
    for key, fields in changes.items():
        write = _Write(delete=prefix + key) if fields is None else _Write()
        if fields is not None:
            write.update.name = prefix + key
            for name, value in {**fields, _COMMIT_TOKEN: commit_token}.items():
                _put(write.update.fields[name], value)
        if key in stored:
            write.current_document.update_time.CopyFrom(stored[key].version)
        else:
            write.current_document.exists = False
        yield write


def _put(target: Any, value: Any) -> None:
    if isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, str):
        target.string_value = value
    else:
        target.timestamp_value.FromDatetime(value)


def _stored(document: Any) -> tuple[str, Stored]:
    fields = {name: getattr(value, value.WhichOneof("value_type")) for name, value in document.fields.items()}
    commit_token = fields.pop(_COMMIT_TOKEN, b"")
    return document.name.rpartition("/")[2], Stored(fields, commit_token, document.update_time)


def _between(collection: str, field: str, start: str, end: str) -> types.StructuredQuery:
    operator = types.StructuredQuery.FieldFilter.Operator
    filters = [
        {"field_filter": {"field": {"field_path": field}, "op": op, "value": {"string_value": edge}}}
        for op, edge in ((operator.GREATER_THAN_OR_EQUAL, start), (operator.LESS_THAN, end))
    ]
    where = {"composite_filter": {"op": types.StructuredQuery.CompositeFilter.Operator.AND, "filters": filters}}
    return types.StructuredQuery(from_=[{"collection_id": collection}], where=where)
