"""What can be wrong with customers: the bytes of the file, its columns, its values."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from bench.input_fuzz.customers import Draw, chance, one_of
from bench.input_fuzz.inputs import Files, Inputs
from bench.input_fuzz.kinds import IDS, VALUES


def odd_ids(draw: Draw, inputs: Inputs) -> None:
    """Ids of customers or of retailers of a type that ids rarely have."""
    table, kind = inputs.table, one_of(draw, *IDS)
    column = one_of(draw, "customer_id", "customer_id", "retailer_id", "household")
    values = [IDS[kind](n) for n in range(table.rows)]
    plain = all(isinstance(value, str) for value in values)
    table.columns[column] = values
    inputs.bad[-1] += f" ({kind} in {column})"
    exact = (
        plain and kind not in ("blanks", "control characters", "long") and table.format.startswith(("parquet", "csv"))
    )
    others = (table.columns[name] for name in ("customer_id", "retailer_id"))
    inputs.facts.customers = {(str(c), str(r)) for c, r in zip(*others, strict=True)} if exact else None
    if column == "customer_id":
        inputs.facts.never.clear()
        inputs.facts.never_of.clear()


def _write_as(inputs: Inputs, form: str) -> None:
    """Writes the customers in a format; --customers follows, unless an earlier part has made it odd."""
    follows = inputs.options.get("--customers") == [inputs.table.source]
    inputs.table.format = form
    if follows:
        inputs.options["--customers"] = [inputs.table.source]


def odd_types(draw: Draw, inputs: Inputs) -> None:
    """A column that conditions, addresses, consents or the shared address use has another type."""
    kind = one_of(draw, *VALUES)
    column = one_of(
        draw,
        "spend",
        "spend",
        "email",
        "phone",
        "email_consent",
        "tz",
        "orders",
        "signed_up",
        "first_name",
        "household",
    )
    type_, value = VALUES[kind]
    inputs.table.columns[column] = [value(n) for n in range(inputs.table.rows)]
    inputs.table.types.pop(column, None)
    if type_ is not None:
        inputs.table.types[column] = type_
        _write_as(inputs, "parquet")
    if column == "spend" and chance(draw):
        inputs.engine["shared_address"] = {"column": "spend", "keep": one_of(draw, "highest", "lowest")}
    inputs.bad[-1] += f" ({kind} in {column})"


def odd_values(draw: Draw, inputs: Inputs) -> None:
    """Some cells hold what the others of the column do not."""
    if inputs.table.format in ("parquet", "avro"):
        _write_as(inputs, one_of(draw, "csv", "ndjson"))
        inputs.table.columns["signed_up"] = [str(v) for v in inputs.table.columns["signed_up"]]
    column = one_of(draw, *inputs.table.columns)
    value = one_of(
        draw,
        "x",
        "",
        " ",
        "\x00",
        "a\nb",
        '"',
        "'",
        "=cmd()",
        10**25,
        1e300,
        -0.0,
        float("nan"),
        True,
        [],
        {},
        "\ufeff",
        "é" * 2_000,
        None,
    )
    inputs.table.columns[column][draw_row(draw, inputs)] = value
    inputs.bad[-1] += f" ({value!r:.20} in {column})"
    inputs.facts.customers = None
    if column == "customer_id":
        inputs.facts.never.clear()
        inputs.facts.never_of.clear()


def draw_row(draw: Draw, inputs: Inputs) -> int:
    """The place of some row."""
    return int(one_of(draw, *range(inputs.table.rows)))


def odd_columns(draw: Draw, inputs: Inputs) -> None:
    """Columns that are missing, or have odd names."""
    columns, kind = inputs.table.columns, one_of(draw, "missing", "named", "shadow", "cases", "none")
    if kind == "missing":
        name = one_of(draw, "customer_id", "retailer_id", "email", "email_consent", "phone", "spend")
        del columns[name]
        inputs.must = 2 if name in ("customer_id", "retailer_id") else None
    elif kind == "named":
        name = one_of(
            draw,
            "",
            " ",
            'a"b',
            "select",
            "a.b",
            "a\nb",
            "日本",
            "x" * 5_000,
            "*",
            "1",
            "'",
            "__row",
            "__index_level_0__",
            "rowid",
        )
        if inputs.table.format == "avro":
            _write_as(inputs, "parquet")
        columns[name] = list(range(inputs.table.rows))
    elif kind == "shadow":
        _write_as(inputs, "csv")
        columns[one_of(draw, "launched_at", "LAUNCHED_AT", "true", "now", "outcome", "campaign_id")] = list(
            range(inputs.table.rows)
        )
    elif kind == "cases":
        _write_as(inputs, "parquet")
        columns["Customer_ID"] = list(range(inputs.table.rows))
        inputs.must = 2
    else:
        columns.clear()
        _write_as(inputs, one_of(draw, "parquet", "csv", "ndjson"))
        inputs.must = 2
    inputs.bad[-1] += f" ({kind})"
    if kind in ("missing", "none"):
        inputs.facts.customers, inputs.facts.rows = None, None


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "a broken end": lambda data: data[: len(data) // 2],
    "one byte less": lambda data: data[:-1],
    "more at the end": lambda data: data + b"\x00\x01more",
    "a changed byte": lambda data: (
        data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 0xFF]) + data[len(data) // 3 + 1 :]
    ),
    "zeros": lambda data: bytes(len(data)),
    "zipped": lambda data: gzip.compress(data, mtime=0),
    "zipped twice": lambda data: gzip.compress(gzip.compress(data, mtime=0), mtime=0),
    "twice": lambda data: data + data,
    "carriage returns": lambda data: data.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    "the first line": lambda data: data.partition(b"\n")[0] + b"\n",
    "no first line": lambda data: data.partition(b"\n")[2],
    "an open quote": lambda data: data + b'"open, and never closed',
    "ragged rows": lambda data: data + b"1\n1,2\n" + b"," * 50 + b"\n",
    "empty lines": lambda data: b"\n\n" + data.replace(b"\n", b"\n\n"),
    "UTF-16": lambda data: data.decode("utf-8", "ignore").encode("utf-16"),
    "UTF-16 without a mark": lambda data: data.decode("utf-8", "ignore").encode("utf-16-le"),
    "UTF-32": lambda data: data.decode("utf-8", "ignore").encode("utf-32"),
    "Latin-1": lambda data: data + "é,ü\n".encode("latin-1"),
    "an array": lambda data: b"[" + b",".join(data.splitlines()) + b"]",
    "deep JSON": lambda data: data + b'{"customer_id": ' + b"[" * 5_000 + b"]" * 5_000 + b"}\n",
    "huge numbers": lambda data: data + b'{"customer_id": ' + b"9" * 5_000 + b', "retailer_id": "store-0"}\n',
    "words in JSON": lambda data: data + b'1\n"x"\nnull\n[]\ntrue\nNaN\n{"customer_id": NaN}\n',
    "keys twice": lambda data: data + b'{"customer_id": "c-1", "customer_id": "c-2", "retailer_id": "x"}\n',
    "a heading": lambda data: b"Export of customers,,,\n" + data,
    "sep=": lambda data: b"sep=;\n" + data,
}


def odd_bytes(draw: Draw, inputs: Inputs) -> None:
    """A file of customers whose bytes are not those of its format."""
    kind = one_of(draw, *BYTES)
    name = inputs.table.source if inputs.table.files == 1 else f"customers/part-1.{inputs.table.format}"

    def edit(files: Files) -> None:
        if files.get(name):
            files[name] = BYTES[kind](files[name])

    inputs.edits.append(edit)
    inputs.bad[-1] += f" ({kind} in {inputs.table.format})"
    inputs.must = 2 if kind == "nothing" or (kind == "zeros" and inputs.table.format in ("parquet", "avro")) else None
    inputs.facts.rows, inputs.facts.customers = None, None
    if kind in ("a changed byte", "twice", "Latin-1", "zeros", "UTF-16 without a mark", "UTF-32"):
        inputs.facts.never.clear()
        inputs.facts.never_of.clear()


def odd_name(draw: Draw, inputs: Inputs) -> None:
    """A file with the ending of another format, a folder of two formats or of none."""
    kind = one_of(draw, "ending", "mixture", "empty folder", "folder with an ending", "glob", "nobody", "hidden")
    source = inputs.table.source
    ending = one_of(draw, "csv", "parquet", "avro", "ndjson", "csv.gz", "txt", "tsv", "CSV", "xlsx", "parquet.gz", "")

    def edit(files: Files) -> None:
        if kind == "ending" and source in files:
            files[f"other.{ending}".rstrip(".")] = files.pop(source)
        if kind == "mixture":
            files.update({"mixed/a.csv": b"customer_id,retailer_id\n1,2\n", "mixed/b.ndjson": b'{"customer_id": 1}\n'})
        files.update({"empty/": b"", "folder.csv/": b"", ".hidden/.a.csv": b"customer_id\n1\n"})
        if kind == "nobody":
            files["nobody.csv"] = b"customer_id,retailer_id,email\n"

    given = {"ending": f"other.{ending}".rstrip("."), "mixture": "mixed", "empty folder": "empty", "folder with an ending": "folder.csv",
             "glob": one_of(draw, "customers*", "*", "[", "**", "none*.csv", "?"), "nobody": "nobody.csv", "hidden": ".hidden"}  # fmt: skip
    inputs.edits.append(edit)
    inputs.options["--customers"] = [given[kind]]
    inputs.bad[-1] += f" ({kind}: {given[kind]})"
    inputs.must = None if kind in ("ending", "glob") else 2
    inputs.facts.rows, inputs.facts.customers = None, None
    inputs.facts.never.clear()
    inputs.facts.never_of.clear()


FAULTS: dict[str, Callable[[Draw, Inputs], None]] = {
    "odd ids": odd_ids, "odd types": odd_types, "odd values": odd_values, "odd columns": odd_columns,
    "odd bytes of customers": odd_bytes, "an odd name of customers": odd_name,
}  # fmt: skip
