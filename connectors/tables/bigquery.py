"""BigQuery customers: a table, a view or a query, read once into the launch's snapshot.

Credentials are Google's defaults of the environment; jobs and reads are billed to the environment's project, else to
the table's. Rows come by the Storage Read API, as Arrow. With BIGQUERY_EMULATOR_HOST (`http://host:port`) nobody logs
in, and rows come by REST unless BIGQUERY_STORAGE_EMULATOR_HOST (`host:port`) is set too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from connectors.tables.sources import BIGQUERY, Reject, check_names, unusable
from schemas.problems import JobError, shown

RETRY_SECONDS = 60.0
"""How long a call is retried while BigQuery does not answer."""
CALL_SECONDS = 120.0
"""The timeout of one call; a query may take as long as BigQuery lets it."""
POLL_SECONDS = 0.5
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.keepalive_time_ms", 60_000)]
_TABLE = re.compile(r"(?P<project>[a-z0-9.:-]+)\.(?P<dataset>\w+)\.(?P<table>[\w$-]+)")
_TYPES = {
    "STRING": pa.string(), "BYTES": pa.binary(), "INTEGER": pa.int64(), "INT64": pa.int64(), "FLOAT": pa.float64(),
    "FLOAT64": pa.float64(), "BOOLEAN": pa.bool_(), "BOOL": pa.bool_(), "DATE": pa.date32(), "TIME": pa.time64("us"),
    "DATETIME": pa.timestamp("us"), "TIMESTAMP": pa.timestamp("us", "UTC"), "NUMERIC": pa.decimal128(38, 9),
    "GEOGRAPHY": pa.string(), "JSON": pa.string(),
}  # fmt: skip


class BigQueryRows:
    """The rows of `bigquery:PROJECT.DATASET.TABLE` or `bigquery:SELECT …`. Raises InputError when BigQuery refuses the
    query, the table or the account's rights, JobError when it cannot be reached or nobody is logged in."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._asked = source.removeprefix(BIGQUERY).strip()
        table = _TABLE.fullmatch(self._asked)
        if table is None and not re.match(r"(?is)(select|with)\b", self._asked):
            raise unusable(source, self._asked, "write bigquery:PROJECT.DATASET.TABLE or bigquery:SELECT …")
        self._sql = None if table else self._asked
        with _explained_errors(source):
            self._credentials, self._client = _connected(table["project"] if table else None)
            self._fields = self._columns()
        self.schema = pa.schema([(field.name, self._arrow(field)) for field in self._fields])
        check_names(source, self.schema.names)

    def batches(self, reject: Reject) -> Iterator[pa.RecordBatch]:
        """All rows. BigQuery's rows are always valid: nothing is rejected."""
        with _explained_errors(self._source):
            for batch in self._read():
                columns = [batch.column(field.name).cast(field.type) for field in self.schema]
                yield pa.record_batch(columns, schema=self.schema)

    def _columns(self) -> list[Any]:
        """The fields of the table, or of the query's result; a view becomes a query here."""
        from google.cloud import bigquery

        if self._sql is None:
            table = self._client.get_table(self._asked, **_limits())
            if table.table_type not in (None, "TABLE"):
                self._sql = f"SELECT * FROM `{self._asked}`"  # noqa: S608 (the name has matched _TABLE)
            return list(table.schema)
        config = bigquery.QueryJobConfig(dry_run=True)
        job = self._client.query(self._sql, job_config=config, job_retry=None, **_limits())
        if job.statement_type not in (None, "SELECT") or not job.schema:
            fix = "gives no rows, or is several statements; write one SELECT"
            raise unusable(self._source, str(job.statement_type), fix)
        return list(job.schema)

    def _answer(self) -> Any:
        """The table with the rows: the one that the source names, or the one with the query's result."""
        from google.cloud import bigquery

        if self._sql is None:
            return bigquery.TableReference.from_string(self._asked)
        job = self._client.query(self._sql, job_retry=None, **_limits())
        while not job.done(**_limits()):
            time.sleep(POLL_SECONDS)
        if (failure := job.exception()) is not None:
            raise failure
        return job.destination

    def _read(self) -> Iterator[pa.RecordBatch]:
        table = self._answer()
        by_rest = os.environ.get("BIGQUERY_EMULATOR_HOST") and not os.environ.get("BIGQUERY_STORAGE_EMULATOR_HOST")
        if by_rest or "$" in table.table_id:  # the Storage Read API knows no partitions by name
            yield from self._client.list_rows(table, selected_fields=self._fields, **_limits()).to_arrow_iterable()
        else:
            yield from self._streamed(table)

    def _streamed(self, table: Any) -> Iterator[pa.RecordBatch]:
        """The rows by the Storage Read API, in one stream: several would change their order."""
        from google.cloud.bigquery_storage import BigQueryReadClient, DataFormat, ReadSession
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

        with BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=self._channel())) as storage:
            wanted = ReadSession(table=table.to_bqstorage(), data_format=DataFormat.ARROW)
            wanted.read_options.selected_fields.extend(self.schema.names)
            parent = f"projects/{self._client.project}"
            session = storage.create_read_session(parent=parent, read_session=wanted, max_stream_count=1, **_limits())
            for stream in session.streams:
                schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
                for page in storage.read_rows(stream.name, retry=_limits()["retry"]):
                    rows = pa.py_buffer(page.arrow_record_batch.serialized_record_batch)
                    yield pa.ipc.read_record_batch(rows, schema)

    def _channel(self) -> Any:
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
        from grpc import insecure_channel

        if host := os.environ.get("BIGQUERY_STORAGE_EMULATOR_HOST"):
            return insecure_channel(host, options=_CHANNEL)
        return BigQueryReadGrpcTransport.create_channel(credentials=self._credentials, options=_CHANNEL)

    def _arrow(self, field: Any) -> pa.DataType:
        kind = field.field_type.upper()
        if kind in ("RECORD", "STRUCT"):
            arrow = pa.struct([(inner.name, self._arrow(inner)) for inner in field.fields])
        elif kind in _TYPES:
            arrow = _TYPES[kind]
        else:
            fix = "is a type that is not read; CAST the column in a query, or leave it out: SELECT * EXCEPT (…)"
            raise unusable(self._source, kind, fix, field=field.name)
        return pa.list_(arrow) if field.mode == "REPEATED" else arrow


def _connected(table_project: str | None) -> tuple[Any, Any]:
    """The credentials, and a client that bills the environment's project, else the table's."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        credentials, project = AnonymousCredentials(), table_project or "emulated"
    else:
        credentials, project = google.auth.default(scopes=SCOPES)
    if (project or table_project) is None:
        raise JobError("BigQuery needs a project to bill the query to; set GOOGLE_CLOUD_PROJECT to its id")
    return credentials, bigquery.Client(project or table_project, credentials=credentials)


def _limits() -> dict[str, Any]:
    """The retries and the timeout of a call: Google's defaults are ten minutes, and none."""
    from google.cloud.bigquery import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_delay(initial=0.2, maximum=10.0, multiplier=2.0).with_timeout(RETRY_SECONDS)
    return {"retry": retry, "timeout": CALL_SECONDS}


@contextmanager
def _explained_errors(source: str) -> Iterator[None]:
    """Raise InputError for a wrong query, name or right, and JobError where BigQuery cannot be reached."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise _explained(source, error) from error


def _explained(source: str, error: Exception) -> Exception:
    from google.api_core.exceptions import ClientError, Forbidden, TooManyRequests, Unauthorized
    from google.auth.exceptions import GoogleAuthError, TransportError

    error = getattr(error, "cause", None) or error  # of a RetryError, what was tried again
    first = next((entry for entry in getattr(error, "errors", ()) if isinstance(entry, dict)), {})
    message = shown(str(first.get("message") or getattr(error, "message", None) or error), 400)
    if isinstance(error, Unauthorized | GoogleAuthError) and not isinstance(error, TransportError):
        fix = "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
        return JobError(f"BigQuery does not know this account ({message}); {fix}")
    if isinstance(error, TooManyRequests) or first.get("reason") in ("quotaExceeded", "rateLimitExceeded"):
        return JobError(f"BigQuery is at its quota ({message}); run the same command later")
    if isinstance(error, Forbidden):
        roles = "BigQuery Data Viewer on the data, BigQuery Job User and BigQuery Read Session User on the project"
        return unusable(source, message, f"give this account the roles {roles}, or correct the name")
    if isinstance(error, ClientError):
        return unusable(source, message, "correct the query or the table's name")
    return JobError(f"BigQuery cannot be reached ({message}); check the network, then run the same command again")
