"""Whatever bytes stand in a table, it is read or refused: no other exception, and what is read is what was written."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.inputs.histories import read_histories
from connectors.inputs.lists import read_codes, read_list
from connectors.inputs.signals import read_signal_rows
from connectors.inputs.sticky import check_sticky
from schemas.problems import InputError, JobError
from stores.launches.snapshot import parts, read_part, take_snapshot

PIECES = st.sampled_from(
    [b"customer_id", b"retailer_id", b"code", b"sent_at", b",", b";", b"\t", b"|", b"\n", b"\r\n", b"\r", b'"', b"\0", b"7", b"007",
     b"7.5", b"c-1", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"}", b"[", b"]", b'{"customer_id": 7}\n', b'"code":', b"null", b"\xc3\xa9", b" "]
)  # fmt: skip
NAMES = ["t.csv", "t.csv.gz", "t.txt", "t.ndjson", "t.ndjson.gz", "t.parquet", "t.avro"]


def whole_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"customer_id": ["a", "b"], "retailer_id": ["r", "r"]}), sink)
    return sink.getvalue()


def whole_avro() -> bytes:
    sink = io.BytesIO()
    fields = [{"name": "customer_id", "type": "string"}, {"name": "x", "type": ["null", "double"]}]
    fastavro.writer(sink, {"type": "record", "name": "r", "fields": fields}, [{"customer_id": "a", "x": 1.0}])
    return sink.getvalue()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sound file of which some bytes are others, or missing."""
    data = draw(st.sampled_from([whole_parquet(), whole_avro(), gzip.compress(b"customer_id\n7\n" * 50)]))
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 8)) :]


def read_customers(path: Path) -> None:
    snapshot = take_snapshot(str(path), path.parent / "launch", {"customer_id"})
    for part in parts(snapshot):
        for batch in read_part(part, snapshot.schema.names):
            batch.to_pylist()


READERS = {
    "customers": read_customers,
    "list": lambda path: read_list(path, "customer_id"),
    "codes": read_codes,
    "history": lambda path: list(read_histories([str(path)], ["retailer_id", "customer_id"])),
    "sticky": check_sticky,
    "signals": lambda path: read_signal_rows(path, "s", ["retailer_id", "sent"]),
}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(sorted(READERS)),
    st.one_of(st.lists(PIECES, max_size=40).map(b"".join), st.binary(max_size=200), damaged()),
    st.booleans(),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, reader: str, data: bytes, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("given") / name
    path.write_bytes(gzip.compress(data) if packed else data)
    problems = []
    try:
        READERS[reader](path)
    except InputError as error:
        problems = error.problems
    except JobError:  # pages of customers' Parquet are met when they are read
        assert (reader, name) == ("customers", "t.parquet")
    assert all(problem.file and problem.fix for problem in problems)


IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda t: t.strip() == t
)


@settings(max_examples=100, deadline=None)
@given(st.lists(IDS, min_size=1, max_size=20), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_ids_in_quotes_come_out_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], separator: str, end: str, wide: bool
) -> None:
    path = tmp_path_factory.mktemp("given") / "t.csv"
    rows = [f'"{one.replace(chr(34), chr(34) * 2)}"{separator}x' for one in ids]
    text = end.join([f"customer_id{separator}since", *rows]) + end
    path.write_bytes(text.encode("utf-16" if wide else "utf-8"))
    assert read_list(path, "customer_id").to_pylist() == ids
