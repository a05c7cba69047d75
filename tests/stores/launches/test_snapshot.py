import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.factories import any_customer_file, any_customers

from schemas.elements import BROKEN_ROWS
from schemas.problems import InputError
from stores.launches.snapshot import (
    Snapshot,
    describe,
    find_customers,
    parts,
    read_part,
    read_rejected,
    source_schema,
    take_snapshot,
)


def rows_of(snapshot: Snapshot, batch_rows: int = 100) -> list[dict[str, object]]:
    return [
        row
        for part in parts(snapshot, batch_rows)
        for batch in read_part(part, snapshot.schema.names)
        for row in batch.to_pylist()
    ]


def any_csv(path: Path, number: int = 1000, bad: int = 0) -> Path:
    path.write_text("customer_id,spend\n" + "".join(f"c{n},{n}\n" for n in range(number)) + "too,many,fields\n" * bad)
    return path


def test_parquet_is_used_where_it_stands(tmp_path: Path) -> None:
    any_customer_file(tmp_path / "customers.parquet", 300)
    found = take_snapshot(str(tmp_path / "customers.parquet"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert rows_of(found) == any_customers(300).to_pylist()


@pytest.mark.parametrize("form", ["folder", "glob"])
def test_a_folder_and_a_glob_are_read_in_the_order_of_the_names(tmp_path: Path, form: str) -> None:
    for name in ("b", "a"):
        (tmp_path / "in").mkdir(exist_ok=True)
        any_customer_file(tmp_path / "in" / f"{name}.parquet", 10, customer_id=lambda n, name=name: f"{name}{n}")
    source = str(tmp_path / "in") if form == "folder" else str(tmp_path / "in" / "*.parquet")
    found = rows_of(take_snapshot(source, tmp_path / "out"))
    assert [row["customer_id"] for row in found] == [f"{name}{n}" for name in "ab" for n in range(10)]


def test_every_batch_but_the_last_of_a_part_is_full_whatever_the_row_groups(tmp_path: Path) -> None:
    pq.write_table(any_customers(1000), tmp_path / "c.parquet", row_group_size=37)
    snapshot = take_snapshot(str(tmp_path / "c.parquet"), tmp_path)
    for part in parts(snapshot, 100):
        sizes = [batch.num_rows for batch in read_part(part, ["customer_id"])]
        assert len(sizes) == part.batches
        assert sum(sizes) == part.rows
        assert set(sizes[:-1]) <= {100}
    assert sum(part.rows for part in parts(snapshot, 100)) == 1000


def test_batches_have_fewer_rows_where_rows_are_large(tmp_path: Path) -> None:
    notes = [chr(97 + n % 26) * 3_000_000 + str(n) for n in range(200)]
    pq.write_table(any_customers(200, note=notes), tmp_path / "c.parquet", use_dictionary=False, row_group_size=200)
    snapshot = take_snapshot(str(tmp_path / "c.parquet"), tmp_path)
    sizes = [batch.num_rows for part in parts(snapshot, 100_000) for batch in read_part(part, ["note"])]
    assert sum(sizes) == 200
    assert max(sizes) * 3_000_000 <= 256 << 20


@pytest.mark.parametrize("name", ["customers.csv", "customers.ndjson"])
def test_other_formats_are_converted_once_and_found_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        any_csv(path)
    else:
        path.write_text("".join(json.dumps({"customer_id": f"c{n}", "spend": n}) + "\n" for n in range(1000)))
    first = take_snapshot(str(path), tmp_path / "out")
    stamp = Path(first.files[0].path).stat().st_mtime_ns
    again = take_snapshot(str(path), tmp_path / "out")
    assert again == first
    assert Path(again.files[0].path).stat().st_mtime_ns == stamp
    assert rows_of(first) == [{"customer_id": f"c{n}", "spend": n} for n in range(1000)]


def test_a_conversion_that_broke_off_is_done_anew(tmp_path: Path) -> None:
    source = str(any_csv(tmp_path / "customers.csv"))
    first = take_snapshot(source, tmp_path / "out")
    (tmp_path / "out" / "snapshot" / "done.json").unlink()
    Path(first.files[0].path).write_bytes(b"half a file")
    assert rows_of(take_snapshot(source, tmp_path / "out")) == rows_of(first)


def test_a_converted_snapshot_outlives_its_source(tmp_path: Path) -> None:
    path = any_csv(tmp_path / "customers.csv")
    first = take_snapshot(str(path), tmp_path / "out")
    path.unlink()
    assert take_snapshot(str(path), tmp_path / "out") == first


def test_a_changed_source_has_another_fingerprint_and_leaves_a_launched_snapshot_alone(tmp_path: Path) -> None:
    path = any_csv(tmp_path / "customers.csv")
    first = take_snapshot(str(path), tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("{}")
    any_csv(path, 5)
    changed = take_snapshot(str(path), tmp_path / "out")
    assert changed.fingerprint != first.fingerprint
    assert changed.rows == first.rows


def test_a_changed_parquet_file_has_another_fingerprint(tmp_path: Path) -> None:
    prints = {
        take_snapshot(str(any_customer_file(tmp_path / "c.parquet", 10, spend=lambda n, s=s: float(n + s))), tmp_path).fingerprint
        for s in range(3)
    }  # fmt: skip
    assert len(prints) == 3


def test_rejected_rows_are_kept_beside_the_others(tmp_path: Path) -> None:
    found = take_snapshot(str(any_csv(tmp_path / "customers.csv", 1000, bad=3)), tmp_path / "out")
    assert [(row.reason, row.data) for row in read_rejected(found)] == [("wrong_columns", b"too,many,fields")] * 3
    assert found.rows == 1000


def test_a_source_that_is_mostly_broken_blows_the_fuse(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read(.|\n)*the source must be wrong") as error:
        take_snapshot(str(any_csv(tmp_path / "customers.csv", 500, bad=200)), tmp_path / "out")
    assert "200 of 700 rows" in str(error.value)
    assert "customers.csv line 502" in str(error.value)


def test_broken_text_in_parquet_is_escaped_and_named(tmp_path: Path) -> None:
    names = pa.array([b"Ann", b"B\xffb", None, b"D"], pa.binary()).view(pa.string())
    table = any_customers(4).drop_columns(["first_name"]).append_column("first_name", names)
    pq.write_table(table, tmp_path / "c.parquet")
    snapshot = take_snapshot(str(tmp_path / "c.parquet"), tmp_path)
    (batch,) = read_part(parts(snapshot)[0], ["customer_id", "first_name"])
    assert batch["first_name"].to_pylist() == ["Ann", "B\\xffb", None, "D"]
    assert np.frombuffer(batch.schema.metadata[BROKEN_ROWS], np.int64).tolist() == [1]


def test_dictionaries_and_large_strings_become_plain_columns(tmp_path: Path) -> None:
    table = pa.table({
        "customer_id": pa.array(["a", "b"], pa.large_string()),
        "tier": pa.array(["x", "y"]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "c.parquet")
    snapshot = take_snapshot(str(tmp_path / "c.parquet"), tmp_path)
    assert snapshot.schema.types == [pa.string(), pa.string()]
    (batch,) = read_part(parts(snapshot)[0], snapshot.schema.names)
    assert batch.schema.types == [pa.string(), pa.string()]


def test_customers_are_found_by_their_id_also_when_it_is_a_number(tmp_path: Path) -> None:
    any_customer_file(tmp_path / "c.parquet", 20, customer_id=lambda n: n // 2)
    snapshot = take_snapshot(str(tmp_path / "c.parquet"), tmp_path)
    assert find_customers(snapshot, "customer_id", "7")["orders"].to_pylist() == [14 % 13, 15 % 13]
    assert find_customers(snapshot, "customer_id", "7' OR 1=1").num_rows == 0


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
def test_a_schema_is_told_without_a_conversion(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c.{suffix}"
    if suffix == "parquet":
        any_customer_file(path, 100)
    elif suffix == "csv":
        any_csv(path, 100)
    else:
        path.write_text('{"customer_id": "c1", "spend": 5}\n{"customer_id": "c2"}\n')
    columns = {column.name: column for column in describe(str(path))}
    assert columns["customer_id"].type == "string"
    assert columns["spend"].examples[0] in (0.0, 0, 5)
    assert source_schema(str(path)).names == list(columns)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


REFUSED = [
    ("nothing there", lambda f: f / "none.csv", "there is no such file"),
    ("an empty file", lambda f: (f / "c.csv").touch() or f / "c.csv", "is empty"),
    ("a header alone", lambda f: any_csv(f / "c.csv", 0), "holds no customers"),
    ("no rows", lambda f: any_customer_file(f / "c.parquet", 0), "holds no customers"),
    (
        "no Parquet",
        lambda f: (f / "c.parquet").write_text("PAR1 no") and f / "c.parquet",
        "is not a whole Parquet file",
    ),
    ("another format", lambda f: (f / "c.xlsx").write_text("x") and f / "c.xlsx", "is of no known format"),
    ("a mixture", lambda f: any_csv(f / "c.csv") and any_customer_file(f / "c.parquet") and f, "holds several formats"),
]


@pytest.mark.parametrize(("make", "told"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_source_is_refused_with_what_to_do(tmp_path: Path, make: object, told: str) -> None:
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")  # type: ignore[operator]
    with pytest.raises(InputError, match=told):
        take_snapshot(str(source), tmp_path / "out")


def test_parquet_files_with_other_columns_or_types_are_named(tmp_path: Path) -> None:
    any_customer_file(tmp_path / "a.parquet")
    any_customer_file(tmp_path / "b.parquet", spend=lambda n: str(n))
    with pytest.raises(InputError, match=r"b\.parquet  spend = string\n    a\.parquet has double"):
        take_snapshot(str(tmp_path), tmp_path / "out")


def test_a_file_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = any_csv(tmp_path / "c.csv")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # root may read everything, so the refusal itself has to be played
    with pytest.raises(InputError, match="cannot be read \\(Permission denied\\); check its permissions"):
        take_snapshot(str(path), tmp_path / "out")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_numbers_that_no_condition_can_use_are_refused_by_their_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "big": pa.array([1], pa.decimal256(50, 2))}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match=r"big = decimal256\(50, 2\)"):
        take_snapshot(str(tmp_path / "c.parquet"), tmp_path)
