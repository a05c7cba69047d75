"""A small BigQuery on 127.0.0.1: its REST API v2, and its Storage Read API, over tables that stand in Python.

It speaks what Google's client says to get a table, to list its rows in pages, and to run a query: dry, or as a job that
still runs when it is first looked at. Values go out as BigQuery's: cells `{"v": …}` in rows `{"f": […]}`, all as text.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import grpc
import pyarrow as pa
from google.cloud.bigquery import SchemaField
from google.cloud.bigquery._pandas_helpers import bq_to_arrow_schema
from google.cloud.bigquery_storage_v1 import types

Json = dict[str, Any]


class Table(NamedTuple):
    """A table, or what a query answers; `kind` is BigQuery's, such as VIEW, or of a query its statement type."""

    fields: list[Json]
    rows: list[Json]
    kind: str = "TABLE"


class Failure(NamedTuple):
    """An error as BigQuery answers it."""

    status: int
    reason: str
    message: str


AWAY = Failure(503, "backendError", "The service is away")


def field(name: str, kind: str, mode: str = "NULLABLE", *inner: Json) -> Json:
    """A field of a schema."""
    return {"name": name, "type": kind, "mode": mode, "fields": list(inner)}


class BigQueryServer:
    """Tables by `project.dataset.table` (one named `secret` is denied), queries by their exact text.

    `asked` lists the requests. While there is a next one in `failures` (REST) or `broken` (Storage), it is the answer;
    `job_failure` is what jobs end in; while `silent` is set, no answer comes.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.queries: dict[str, Table] = {}
        self.page_rows = 1000
        self.asked: list[str] = []
        self.failures: Iterator[Failure] = iter(())
        self.broken: Iterator[grpc.StatusCode | None] = iter(())
        self.job_failure: Failure | None = None
        self.silent = False
        self.host = self.storage_host = ""
        self._jobs: dict[str, Iterator[Json]] = {}

    def answer(self, method: str, url: str, body: Json) -> Json | Failure:
        """The answer to a request."""
        parts = urlsplit(url)
        path = unquote(parts.path).removeprefix("/bigquery/v2/projects/")
        self.asked.append(f"{method} {path}")
        if failure := next(self.failures, None):
            return failure
        if found := re.fullmatch("(.+)/datasets/(.+)/tables/([^/]+)(/data)?", path):
            project, dataset, name, data = found.groups()
            full = f"{project}.{dataset}.{name}"
            if name == "secret":
                return Failure(403, "accessDenied", f"Access Denied: Table {full}: no bigquery.tables.get")
            if (table := self.tables.get(full)) is None:
                return Failure(404, "notFound", f"Not found: Table {full}")
            reference = {"projectId": project, "datasetId": dataset, "tableId": name}
            told = {"tableReference": reference, "type": table.kind, "schema": {"fields": table.fields}}
            return self._page(table, dict(parse_qsl(parts.query))) if data else told
        project, _, job = path.partition("/jobs")
        return next(self._jobs[job[1:]]) if method == "GET" else self._begun(project, body)

    def _page(self, table: Table, asked: dict[str, str]) -> Json:
        names = asked.get("selectedFields", ",".join(one["name"] for one in table.fields)).split(",")
        fields = [one for one in table.fields if one["name"] in names]
        start = int(asked.get("pageToken", 0))
        end = start + self.page_rows
        rows = [_row(fields, row) for row in table.rows[start:end]]
        more = {"pageToken": str(end)} if end < len(table.rows) else {}
        return {"totalRows": str(len(table.rows)), "rows": rows, **more}

    def _begun(self, project: str, body: Json) -> Json | Failure:
        config, reference = body["configuration"], {**body["jobReference"], "location": "US"}
        sql = config["query"]["query"]
        if (table := self.queries.get(sql)) is None:
            return Failure(400, "invalidQuery", f"Syntax error: Unexpected text at [1:1]: {sql}")
        answer = {"projectId": project, "datasetId": "_answers", "tableId": f"anon{uuid.uuid4().hex}"}
        self.tables[f"{project}._answers.{answer['tableId']}"] = table
        config["query"]["destinationTable"] = answer
        schema = {"schema": {"fields": table.fields}} if table.fields else {}
        statistics = {"query": {"statementType": table.kind.replace("TABLE", "SELECT"), **schema}}
        job = {"jobReference": reference, "configuration": config, "statistics": statistics}
        done: Json = {"state": "DONE"}
        if config.get("dryRun"):
            return {**job, "status": done}
        if self.job_failure:
            done["errorResult"] = {"reason": self.job_failure.reason, "message": self.job_failure.message}
        running = {**job, "status": {"state": "RUNNING"}}
        self._jobs[reference["jobId"]] = iter([running, {**job, "status": done}])
        return running

    def create_read_session(self, request: Any, context: grpc.ServicerContext) -> Any:
        """A session of one stream, which bears the table's name."""
        wanted = request.read_session
        self.asked.append(f"CreateReadSession {request.parent} {wanted.table}")
        self._break(context)
        rows = self._rows(wanted.table)
        streams = [{"name": wanted.table}] if len(rows) else []
        return types.ReadSession(arrow_schema={"serialized_schema": bytes(rows.schema.serialize())}, streams=streams)

    def read_rows(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """The rows from an offset on; what breaks breaks before a page."""
        self.asked.append(f"ReadRows {request.offset}")
        for batch in self._rows(request.read_stream).slice(request.offset).to_batches(self.page_rows):
            self._break(context)
            sent = {"serialized_record_batch": bytes(batch.serialize())}
            yield types.ReadRowsResponse(arrow_record_batch=sent, row_count=batch.num_rows)

    def _rows(self, path: str) -> pa.Table:
        table = self.tables[".".join(path.split("/")[1::2])]
        schema = bq_to_arrow_schema([SchemaField.from_api_repr(one) for one in table.fields])
        return pa.Table.from_pylist(table.rows, schema)

    def _break(self, context: grpc.ServicerContext) -> None:
        if code := next(self.broken, None):
            context.abort(code, "broken by the test")


def _row(fields: list[Json], row: Json) -> Json:
    return {"f": [{"v": _value(one, row.get(one["name"]))} for one in fields]}


def _value(of: Json, value: Any) -> Any:
    """A value as BigQuery's JSON has it."""
    if of["mode"] == "REPEATED":
        return [{"v": _value({**of, "mode": "NULLABLE"}, one)} for one in value]
    if value is None or of["type"] == "RECORD":
        return value and _row(of["fields"], value)
    if of["type"] == "TIMESTAMP":
        return str((value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class _Handler(BaseHTTPRequestHandler):
    """Answers as `served` says, until the test is over."""

    def __init__(self, served: BigQueryServer, closed: threading.Event, *given: Any) -> None:
        self.served, self.closed = served, closed
        super().__init__(*given)

    def do_GET(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        found, status = self.served.answer(self.command, self.path, body), 200
        if self.served.silent:
            self.closed.wait()
            return
        if isinstance(found, Failure):
            told, status = {"reason": found.reason, "message": found.message}, found.status
            found = {"error": {"code": status, "message": found.message, "errors": [told]}}
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Nothing: the test looks at `asked`."""


@contextmanager
def bigquery_server() -> Iterator[BigQueryServer]:
    """A server that runs, REST at `host` and the Storage Read API at `storage_host`."""
    served, closed = BigQueryServer(), threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, served, closed))
    storage = grpc.server(ThreadPoolExecutor(2))
    methods = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            served.create_read_session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            served.read_rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
        ),
    }
    handler = grpc.method_handlers_generic_handler("google.cloud.bigquery.storage.v1.BigQueryRead", methods)
    storage.add_generic_rpc_handlers([handler])
    served.host = f"http://127.0.0.1:{http.server_port}"
    served.storage_host = f"127.0.0.1:{storage.add_insecure_port('127.0.0.1:0')}"
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    storage.start()
    try:
        yield served
    finally:
        closed.set()
        http.shutdown()
        http.server_close()
        storage.stop(None).wait()
