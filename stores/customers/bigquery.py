"""BigQuery customers: a table or a query, read once into the launch's snapshot.

Credentials are Google's defaults of the environment. BIGQUERY_EMULATOR_HOST is honoured by Google's client; with it
rows come by REST, else by the Storage Read API, as Arrow.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from schemas.problems import InputError, LaunchError
from stores.customers.sources import BIGQUERY, Reject, check_names, wrong

_TABLE = re.compile(r"(?P<project>[a-z0-9.:-]+)\.(?P<dataset>\w+)\.(?P<table>[\w$-]+)")
_TYPES = {
    "STRING": pa.string(), "BYTES": pa.binary(), "INTEGER": pa.int64(), "INT64": pa.int64(), "FLOAT": pa.float64(),
    "FLOAT64": pa.float64(), "BOOLEAN": pa.bool_(), "BOOL": pa.bool_(), "DATE": pa.date32(), "TIME": pa.time64("us"),
    "DATETIME": pa.timestamp("us"), "TIMESTAMP": pa.timestamp("us", "UTC"), "NUMERIC": pa.decimal128(38, 9),
    "BIGNUMERIC": pa.decimal256(76, 38), "GEOGRAPHY": pa.string(), "JSON": pa.string(),
}  # fmt: skip


class BigQueryRows:
    """The rows of `bigquery:PROJECT.DATASET.TABLE` or `bigquery:SELECT …`.

    Raises InputError when BigQuery refuses the query or there is no such table, LaunchError when it cannot be reached.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._asked = source.removeprefix(BIGQUERY).strip()
        self._table = _TABLE.fullmatch(self._asked)
        if self._table is None and not re.match(r"(?is)(select|with)\b", self._asked):
            raise wrong(source, self._asked, "write bigquery:PROJECT.DATASET.TABLE or bigquery:SELECT …")
        self._rows_before: Any = None
        self.schema = self._reached(self._schema)
        check_names(source, self.schema.names)

    def fingerprint(self) -> str:
        """A hash of the question: what it answered is kept in the snapshot."""
        return hashlib.sha256(self._asked.encode()).hexdigest()[:16]

    def batches(self, reject: Reject) -> Iterator[pa.RecordBatch]:
        """All rows. BigQuery's rows are always sound: nothing is rejected."""
        rows = self._reached(self._rows)
        names = [field.name for field in rows.schema]
        found = iter(rows.to_arrow_iterable(bqstorage_client=self._storage()))
        while True:
            batch = self._reached(lambda: next(found, None))
            if batch is None:
                return
            columns = [batch.column(names.index(field.name)).cast(field.type) for field in self.schema]
            yield pa.record_batch(columns, schema=self.schema)

    def _client(self) -> Any:
        from google.api_core.client_options import ClientOptions
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        host = os.environ.get("BIGQUERY_EMULATOR_HOST")
        project = self._table["project"] if self._table else None
        if host:
            options = ClientOptions(api_endpoint=host)
            return bigquery.Client(project or "emulated", credentials=AnonymousCredentials(), client_options=options)
        return bigquery.Client(project)

    def _storage(self) -> Any:
        if os.environ.get("BIGQUERY_EMULATOR_HOST"):
            return None
        from google.cloud.bigquery_storage import BigQueryReadClient

        return BigQueryReadClient()

    def _schema(self) -> pa.Schema:
        from google.cloud import bigquery

        client = self._client()
        if self._table:
            fields = client.get_table(self._asked).schema
        else:
            fields = client.query(self._asked, job_config=bigquery.QueryJobConfig(dry_run=True)).schema
        return pa.schema([(field.name, self._arrow(field)) for field in fields])

    def _rows(self) -> Any:
        client = self._client()
        return client.list_rows(client.get_table(self._asked)) if self._table else client.query_and_wait(self._asked)

    def _arrow(self, field: Any) -> pa.DataType:
        kind = field.field_type.upper()
        if kind in ("RECORD", "STRUCT"):
            found = pa.struct([(inner.name, self._arrow(inner)) for inner in field.fields])
        elif kind in _TYPES:
            found = _TYPES[kind]
        else:
            raise wrong(self._source, kind, "is a type that is not read; CAST the column in a query", field=field.name)
        return pa.list_(found) if field.mode == "REPEATED" else found

    def _reached(self, call: Any) -> Any:
        """What a call gives; InputError where the question is to blame, LaunchError where the way is."""
        from google.api_core.exceptions import ClientError, GoogleAPIError, TooManyRequests, Unauthorized
        from google.auth.exceptions import GoogleAuthError

        try:
            return call()
        except InputError:
            raise
        except (GoogleAuthError, Unauthorized) as error:
            fix = "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
            raise LaunchError(f"BigQuery does not know this account ({error}); {fix}") from error
        except ClientError as error:
            if isinstance(error, TooManyRequests):
                raise LaunchError(f"BigQuery is at its quota ({error.message}); run the same command later") from error
            raise wrong(self._source, str(error.message)[:300], "correct the query or the table's name") from error
        except (GoogleAPIError, OSError) as error:
            raise LaunchError(f"BigQuery cannot be reached ({error}); run the same command again") from error
