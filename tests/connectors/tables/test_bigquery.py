"""BigQuery customers, read by Google's own client from a small BigQuery on this machine."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bigquery_server import AWAY, BigQueryServer, Failure, Table, bigquery_server, field
from support.launching import any_place

from connectors.tables import bigquery
from connectors.tables.bigquery import BigQueryRows
from connectors.tables.sources import Rejected
from runners.cli.main import main
from schemas.problems import InputError, JobError
from stores.launches.snapshot import Snapshot, describe, parts, read_part, source_schema, take_snapshot

NAME = "shop.crm.customers"
TABLE = f"bigquery:{NAME}"
SQL = "SELECT * FROM crm.customers WHERE spend > 0"
QUERY = f"bigquery:{SQL}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    """A BigQuery that is asked by REST; what is waited for is short."""
    monkeypatch.setattr(bigquery, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(bigquery, "POLL_SECONDS", 0.01)
    monkeypatch.delenv("BIGQUERY_STORAGE_EMULATOR_HOST", raising=False)
    with bigquery_server() as served:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", served.host)
        yield served


@pytest.fixture(params=["REST", "Storage"])
def way(request: pytest.FixtureRequest, server: BigQueryServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way on which rows come."""
    if request.param == "Storage":
        monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", server.storage_host)
    return str(request.param)


def read(source: str) -> pa.Table:
    rows = BigQueryRows(source)
    rejected: list[Rejected] = []
    table = pa.Table.from_batches(rows.batches(rejected.append), rows.schema)
    assert rejected == []
    return table


def any_table(number: int = 10, kind: str = "TABLE") -> Table:
    fields = [field("customer_id", "STRING", "REQUIRED"), field("spend", "FLOAT64")]
    return Table(fields, [{"customer_id": f"c{n}", "spend": n / 2} for n in range(number)], kind)


def rows_of(snapshot: Snapshot) -> list[Any]:
    names = snapshot.schema.names
    return [row for part in parts(snapshot) for batch in read_part(part, names) for row in batch.to_pylist()]


EVERY_TYPE = [
    (field("text", "STRING"), "01234", pa.string()),
    (field("whole", "INT64"), 2**60 + 1, pa.int64()),
    (field("old_whole", "INTEGER"), -5, pa.int64()),
    (field("decimal", "FLOAT64"), 0.1, pa.float64()),
    (field("yes", "BOOL"), True, pa.bool_()),
    (field("day", "DATE"), date(1969, 2, 28), pa.date32()),
    (field("hour", "TIME"), time(9, 30, 0, 5), pa.time64("us")),
    (field("at", "TIMESTAMP"), datetime(2026, 1, 2, 3, 4, 5, 678, UTC), pa.timestamp("us", "UTC")),
    (field("wall", "DATETIME"), datetime(2026, 1, 2, 3, 4, 5, 678), pa.timestamp("us")),
    (field("money", "NUMERIC"), Decimal("12345678901234567890.123456789"), pa.decimal128(38, 9)),
    (field("raw", "BYTES"), b"\x00\xff", pa.binary()),
    (field("place", "GEOGRAPHY"), "POINT(1 2)", pa.string()),
    (field("data", "JSON"), '{"a":[1,2]}', pa.string()),
    (field("tags", "STRING", "REPEATED"), ["a", "b"], pa.list_(pa.string())),
    (
        field("home", "RECORD", "NULLABLE", field("zip", "STRING"), field("since", "DATE"), field("more", "JSON")),
        {"zip": "01", "since": date(2020, 1, 1), "more": "5"},
        pa.struct([("zip", pa.string()), ("since", pa.date32()), ("more", pa.string())]),
    ),
    (
        field("orders", "RECORD", "REPEATED", field("id", "INT64"), field("lines", "STRING", "REPEATED")),
        [{"id": 1, "lines": ["x"]}, {"id": None, "lines": []}],
        pa.list_(pa.struct([("id", pa.int64()), ("lines", pa.list_(pa.string()))])),
    ),
]


@pytest.mark.parametrize("source", [TABLE, QUERY])
def test_every_type_arrives_and_nulls_too(server: BigQueryServer, way: str, source: str) -> None:
    full = {one["name"]: value for one, value, _ in EVERY_TYPE}
    empty: dict[str, Any] = {one["name"]: [] if one["mode"] == "REPEATED" else None for one, *_ in EVERY_TYPE}
    table = Table([one for one, *_ in EVERY_TYPE], [full, empty])
    server.tables[NAME] = server.queries[SQL] = table
    found = read(source)
    assert found.schema.names == list(full)
    assert found.schema.types == [kind for *_, kind in EVERY_TYPE]
    assert found.to_pylist() == [full, empty]


@pytest.mark.parametrize("source", [TABLE, QUERY])
def test_many_pages_arrive_whole_and_in_order(server: BigQueryServer, way: str, source: str) -> None:
    server.tables[NAME] = server.queries[SQL] = any_table(2_501)
    assert read(source).to_pylist() == any_table(2_501).rows
    pages = [one for one in server.asked if one.endswith("/data")]
    assert len(pages) == (3 if way == "REST" else 0)


def test_rows_come_by_storage_in_one_stream_billed_to_the_tables_project(
    server: BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", server.storage_host)
    server.tables[NAME] = any_table()
    read(TABLE)
    path = "projects/shop/datasets/crm/tables/customers"
    assert server.asked == [
        "GET shop/datasets/crm/tables/customers",
        f"CreateReadSession projects/shop {path}",
        "ReadRows 0",
    ]


def test_a_storage_stream_that_breaks_off_goes_on_where_it_stopped(
    server: BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", server.storage_host)
    server.tables[NAME] = any_table(2_501)
    server.broken = iter([None, None, None, grpc.StatusCode.UNAVAILABLE])
    assert read(TABLE).to_pylist() == any_table(2_501).rows
    assert server.asked[-2:] == ["ReadRows 0", "ReadRows 2000"]


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED_VIEW", "EXTERNAL"])
def test_what_is_no_plain_table_is_asked_by_a_query(server: BigQueryServer, way: str, kind: str) -> None:
    server.tables[NAME] = Table(any_table().fields, [], kind)
    server.queries["SELECT * FROM `shop.crm.customers`"] = any_table()
    assert read(TABLE).to_pylist() == any_table().rows


def test_a_partition_is_read_alone(server: BigQueryServer, way: str) -> None:
    server.tables[NAME], server.tables[f"{NAME}$20260101"] = any_table(10), any_table(3)
    assert read(f"{TABLE}$20260101").num_rows == 3


@pytest.mark.parametrize("source", [TABLE, QUERY])
def test_a_snapshot_is_taken_once_and_bigquery_never_asked_again(
    server: BigQueryServer, way: str, tmp_path: Path, source: str
) -> None:
    server.tables[NAME] = server.queries[SQL] = any_table(2_500)
    first = take_snapshot(source, tmp_path)
    asked = list(server.asked)
    assert asked
    server.tables.clear()
    assert take_snapshot(source, tmp_path) == first
    assert server.asked == asked
    assert rows_of(first) == any_table(2_500).rows
    assert {path.name for path in (tmp_path / "snapshot").iterdir()} == {"part-00000.parquet", "done.json"}


def test_another_question_in_the_same_folder_is_asked(server: BigQueryServer, tmp_path: Path) -> None:
    server.tables[NAME], server.queries[SQL] = any_table(3), any_table(5)
    assert take_snapshot(TABLE, tmp_path).rows == 3
    assert take_snapshot(QUERY, tmp_path).rows == 5


def test_a_download_that_broke_off_leaves_no_snapshot_and_is_done_anew(server: BigQueryServer, tmp_path: Path) -> None:
    server.tables[NAME] = any_table(2_500)
    steady: list[Any] = [None] * 3
    server.failures = iter([*steady, *[AWAY] * 100])
    with pytest.raises(JobError, match="cannot be reached"):
        take_snapshot(TABLE, tmp_path)
    server.failures = iter(())
    assert rows_of(take_snapshot(TABLE, tmp_path)) == any_table(2_500).rows


def test_a_table_without_rows_is_refused(server: BigQueryServer, way: str, tmp_path: Path) -> None:
    server.tables[NAME] = any_table(0)
    with pytest.raises(InputError, match="holds no customers"):
        take_snapshot(TABLE, tmp_path)


@pytest.mark.parametrize("source", [TABLE, QUERY])
def test_the_schema_is_described_without_reading_rows(server: BigQueryServer, source: str) -> None:
    server.tables[NAME] = server.queries[SQL] = any_table()
    assert source_schema(source) == pa.schema([("customer_id", pa.string()), ("spend", pa.float64())])
    assert len(server.asked) == 1


def test_columns_are_described_over_the_first_rows(server: BigQueryServer, way: str) -> None:
    server.tables[NAME] = any_table(2_500)
    found = describe(TABLE, rows=100)
    assert [(one.name, one.type, one.nulls) for one in found] == [("customer_id", "string", 0), ("spend", "double", 0)]
    assert found[0].examples == ["c0", "c1", "c2"]


REFUSED = [
    ("a table that is not there", "bigquery:shop.crm.nobody", r"Not found: Table shop\.crm\.nobody(.|\n)*correct the query or the table's name"),
    ("a query with a mistake", "bigquery:SELECT nonsense", r"Syntax error(.|\n)*correct the query"),
    ("a table of others", "bigquery:shop.crm.secret", r"Access Denied(.|\n)*BigQuery Data Viewer on the data, BigQuery Job User"),
    ("a type without a column type", "bigquery:SELECT odd", r"odd = INTERVAL\n.*CAST the column in a query"),
    ("decimals wider than SQL's", "bigquery:SELECT wide", r"wide = BIGNUMERIC\n.*SELECT \* EXCEPT"),
    ("a script", "bigquery:SELECT 1; DROP TABLE x", r"SCRIPT\n.*write one SELECT"),
    ("a statement without rows", "bigquery:WITH x", "write one SELECT"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_source_is_refused_before_it_is_read(server: BigQueryServer, source: str, expected: str) -> None:
    server.queries = {
        "SELECT odd": Table([field("odd", "INTERVAL")], []),
        "SELECT wide": Table([field("wide", "BIGNUMERIC")], []),
        "SELECT 1; DROP TABLE x": Table([], [], "SCRIPT"),
        "WITH x": Table([], []),
    }
    with pytest.raises(InputError, match=expected):
        BigQueryRows(source)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "text",
    ["", "customers", "crm.customers", "shop.crm.customers_*", "DELETE FROM x", "shop.crm.a; SELECT 1", "SELECTED"],
)
def test_a_malformed_source_is_refused_with_its_right_form(server: BigQueryServer, text: str) -> None:
    with pytest.raises(InputError, match=r"write bigquery:PROJECT\.DATASET\.TABLE or bigquery:SELECT"):
        BigQueryRows(f"bigquery:{text}")
    assert server.asked == []


def test_rows_that_may_not_be_read_name_the_roles(server: BigQueryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", server.storage_host)
    server.tables[NAME] = any_table()
    server.broken = repeat(grpc.StatusCode.PERMISSION_DENIED)
    with pytest.raises(InputError, match="BigQuery Read Session User"):
        read(TABLE)


FAILED = [
    ("a value that it cannot divide by", Failure(400, "invalidQuery", "Division by zero"), InputError, "Division by zero(.|\n)*correct the query"),
    ("a used up quota", Failure(403, "quotaExceeded", "Quota exceeded"), JobError, "at its quota .*run the same command later"),
    ("too many at once", Failure(429, "rateLimitExceeded", "Slow down"), JobError, "at its quota"),
    ("BigQuery itself", Failure(500, "backendError", "Oh no"), JobError, "Oh no.*run the same command again"),
]  # fmt: skip


@pytest.mark.parametrize(("failure", "error", "expected"), [row[1:] for row in FAILED], ids=[row[0] for row in FAILED])
def test_a_query_fails_by(server: BigQueryServer, failure: Failure, error: type[Exception], expected: str) -> None:
    server.queries[SQL] = any_table()
    server.job_failure = failure
    with pytest.raises(error, match=expected):
        read(QUERY)


ANSWERS = [
    ("an account that is not known", Failure(401, "authError", "Invalid Credentials"), "does not know this account.*gcloud auth application-default login"),
    ("a quota", Failure(403, "quotaExceeded", "Quota exceeded"), "Quota exceeded.*run the same command later"),
    ("a rate that stays too high", Failure(403, "rateLimitExceeded", "Slow down"), "Slow down.*run the same command later"),
    ("too many requests", Failure(429, "rateLimitExceeded", "Slow down"), "Slow down.*run the same command later"),
    ("a service that stays away", AWAY, "The service is away.*check the network, then run the same command again"),
]  # fmt: skip


@pytest.mark.parametrize("source", [TABLE, QUERY])
@pytest.mark.parametrize(("failure", "expected"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_a_launch_stops_for(server: BigQueryServer, source: str, failure: Failure, expected: str) -> None:
    server.failures = repeat(failure)
    with pytest.raises(JobError, match=expected):
        BigQueryRows(source)


def test_a_service_that_is_away_for_a_moment_is_waited_for(
    server: BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigquery, "RETRY_SECONDS", 20)
    server.tables[NAME] = any_table()
    server.failures = iter([AWAY, AWAY])
    assert read(TABLE).num_rows == 10
    assert len(server.asked) == 4


@pytest.mark.parametrize("source", [TABLE, QUERY])
def test_a_server_that_is_down_is_reported_soon(
    server: BigQueryServer, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    with bigquery_server() as other:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", other.host)
    with pytest.raises(JobError, match=r"cannot be reached .*refused.*run the same command again"):
        BigQueryRows(source)


def test_a_storage_server_that_is_down_is_reported_soon(
    server: BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.tables[NAME] = any_table()
    with bigquery_server() as other:
        monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", other.storage_host)
    with pytest.raises(JobError, match=r"cannot be reached .*run the same command again"):
        read(TABLE)


def test_a_server_that_goes_away_while_the_query_runs_is_reported_soon(server: BigQueryServer) -> None:
    server.queries[SQL] = any_table()
    rows = BigQueryRows(QUERY)
    started: list[Any] = [None]
    server.failures = iter([*started, *[AWAY] * 100])
    with pytest.raises(JobError, match="cannot be reached"):
        list(rows.batches(print))


def test_a_server_that_never_answers_is_given_up(server: BigQueryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery, "CALL_SECONDS", 0.2)
    server.silent = True
    with pytest.raises(JobError, match=r"cannot be reached .*timed out.*run the same command again"):
        BigQueryRows(TABLE)


def test_without_credentials_one_is_asked_to_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(JobError, match="gcloud auth application-default login"):
        BigQueryRows(TABLE)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who is logged in, without a project."""
    for name in ("BIGQUERY_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    expected = {"type": "authorized_user", "client_id": "i", "client_secret": "none", "refresh_token": "none"}
    (tmp_path / "account.json").write_text(json.dumps(expected))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))


@pytest.mark.filterwarnings("ignore:Your application has authenticated")
def test_a_query_without_a_project_names_the_variable(account: None) -> None:
    with pytest.raises(JobError, match="set GOOGLE_CLOUD_PROJECT"):
        BigQueryRows(QUERY)


@pytest.mark.filterwarnings("ignore:Your application has authenticated")
def test_the_environments_project_pays_else_the_tables(account: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bigquery._connected("theirs")[1].project == "theirs"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    assert bigquery._connected("theirs")[1].project == "mine"


FIELDS = [
    *[field(name, "STRING") for name in ("customer_id", "retailer_id", "first_name", "email", "phone")],
    *[field(name, "INT64") for name in ("household", "orders")],
    field("email_consent", "BOOL"),
    field("spend", "FLOAT64"),
]


def test_a_launch_from_bigquery_sends_what_one_from_parquet_sends(
    server: BigQueryServer, way: str, tmp_path: Path
) -> None:
    files, asking = any_place(tmp_path / "files"), any_place(tmp_path / "asking")
    server.page_rows = 70
    server.tables[NAME] = Table(FIELDS, pq.read_table(files.root / "customers.parquet").to_pylist())
    assert files.launch() == 0
    assert asking.launch(f"--customers={TABLE}") == 0
    assert asking.events() == files.events()
    asked = list(server.asked)
    assert asking.launch(f"--customers={TABLE}") == 0
    assert main(["check", str(asking.output)]) == 0
    assert server.asked == asked


def test_a_launch_that_bigquery_refuses_says_so_and_sends_nothing(
    server: BigQueryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = any_place(tmp_path)
    assert place.launch(f"--customers={TABLE}") == 2
    assert f"Not found: Table {NAME}" in capsys.readouterr().err
    server.failures = repeat(AWAY)
    assert place.launch(f"--customers={TABLE}") == 1
    assert "run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "events").exists()
