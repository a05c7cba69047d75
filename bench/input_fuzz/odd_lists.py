"""What can be wrong with the smaller tables: lists of ids and codes, earlier sends, sticky assignments."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from bench.input_fuzz.customers import Draw, chance, one_of
from bench.input_fuzz.good import history_table, parquet, sticky_table
from bench.input_fuzz.inputs import Inputs
from bench.input_fuzz.tables import Table, csv_bytes


def _wide(text: str, separator: str) -> bytes:
    """Each id with two more columns, in a file with a header."""
    ids = [line.partition(",")[0] for line in text.split("\n") if line]
    ids = ids[1:] if ids and ids[0] == "customer_id" else ids
    table = Table(
        {"customer_id": ids, "reason": ["asked, twice"] * len(ids), "day": ["2026-01-01"] * len(ids)},
        separator=separator,
    )
    return csv_bytes(table)


SHAPES: dict[str, Callable[[str], bytes]] = {
    "semicolons": lambda text: _wide(text, ";"),
    "tabs": lambda text: _wide(text, "\t"),
    "bars": lambda text: _wide(text, "|"),
    "commas": lambda text: _wide(text, ","),
    "quotes": lambda text: "".join(
        f'"{line}"\n' for line in text.split("\n") if line and '"' not in line and "," not in line
    ).encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "Latin-1": lambda text: b"caf\xe9\n" + text.encode(),
    "carriage returns": lambda text: text.replace("\r", "").replace("\n", "\r").encode(),
    "blanks": lambda text: "".join(f"  {line}  \n\n" for line in text.split("\n")).encode(),
    "an unknown header": lambda text: ("Kundennummer\n" + text.removeprefix("customer_id\n")).encode(),
    "twice": lambda text: (text + text).encode(),
    "nothing": lambda text: b"",
    "blank lines": lambda text: b"\n \n\t\n",
    "a header alone": lambda text: b"customer_id\n",
    "a NUL": lambda text: b"a\x00b\n" + text.encode(),
    "an open quote": lambda text: text.encode() + b'"open\nand on',
    "zipped": lambda text: gzip.compress(text.encode(), mtime=0),
    "Parquet": lambda text: parquet(pa.table({"customer_id": [line for line in text.split("\n") if line]})),
    "a long line": lambda text: b"x" * 300_000 + b"\n" + text.encode(),
    "JSON": lambda text: b'["c-1", "c-2"]\n',
    "ragged": lambda text: text.encode() + b",,,,\n,x\n",
    "ends of two kinds": lambda text: (text.replace("\r\n", "\n").replace("\n", "\r\n") + "c-x\n").encode(),
    "comments": lambda text: b"# do not contact\n" + text.encode(),
}
_KEPT = {
    "semicolons",
    "tabs",
    "bars",
    "commas",
    "a byte order mark",
    "UTF-16",
    "carriage returns",
    "an unknown header",
    "twice",
    "Latin-1",
    "a NUL",
    "comments",
}
"""The ids still stand where they are looked for: they are found, or the file is refused."""
_PLAIN = {"text", "numbers"}


def odd_list(draw: Draw, inputs: Inputs) -> None:
    """A list in another shape: nobody in it may be written to, or it is refused."""
    kind = one_of(draw, *SHAPES)
    names = sorted(inputs.lists)
    if not names or chance(draw, 3):
        ids = [str(value) for value in inputs.table.columns.get("customer_id", ["c-1"])[::2]]
        inputs.lists["lists/more.csv"] = ("\n".join(["customer_id", *ids]) + "\n").encode()
        lists = inputs.engine.setdefault("suppression_lists", [])
        if isinstance(lists, list):
            lists.append({"file": "lists/more.csv"})
        plain = all(one.replace("-", "").isalnum() and one.isascii() for one in ids)
        if kind in _KEPT and plain and lists and not any("id" in name for name in inputs.bad[:-1]):
            inputs.facts.never |= set(ids)
        names = ["lists/more.csv"]
    name = one_of(draw, *names)
    text = inputs.lists[name].decode("utf-8", "replace")
    inputs.lists[name] = SHAPES[kind](text)
    if name != "lists/more.csv":
        simple = '"' not in text and "\r" not in text and "," not in text
        if not (kind in _KEPT and simple):
            inputs.facts.never.clear()
            inputs.facts.never_of.clear()
        if kind not in _KEPT - {"an unknown header", "Latin-1", "a NUL", "comments"}:
            inputs.facts.codes.clear()
    inputs.bad[-1] += f" ({kind} in {name})"


TIMES: dict[str, tuple[Any, Callable[[int], Any]]] = {
    "seconds": (pa.timestamp("s"), lambda n: datetime(2026, 1, 1 + n % 28)),
    "microseconds": (pa.timestamp("us"), lambda n: datetime(2026, 1, 1 + n % 28, 0, 0, 0, n)),
    "nanoseconds": (pa.timestamp("ns", "UTC"), lambda n: datetime(2026, 1, 1 + n % 28, tzinfo=UTC)),
    "text": (None, lambda n: f"2026-01-{1 + n % 28:02d}T10:00:00.123456Z"),
    "text without a zone": (None, lambda n: f"2026-01-{1 + n % 28:02d} 10:00"),
    "words": (None, lambda n: "yesterday" if n % 3 else "2026-01-01T00:00:00Z"),
    "epoch": (pa.int64(), lambda n: 1_760_000_000_000 + n),
    "epoch in floats": (pa.float64(), lambda n: 1.76e12 + n),
    "days": (pa.date32(), lambda n: date(2026, 1, 1 + n % 28)),
    "nothing": (pa.null(), lambda n: None),
    "some nothing": (pa.timestamp("ms", "UTC"), lambda n: None if n % 2 else datetime(2026, 1, 1, tzinfo=UTC)),
    "far": (pa.timestamp("s"), lambda n: 2**45),
    "early": (pa.timestamp("us"), lambda n: datetime(1, 1, 1)),
    "lists": (pa.list_(pa.int64()), lambda n: [n]),
    "booleans": (pa.bool_(), lambda n: True),
}


def odd_history(draw: Draw, inputs: Inputs) -> None:
    """Earlier sends with other times, ids, columns or bytes, or from something else."""
    table = inputs.table
    for name in ("customer_id", "retailer_id"):
        table.columns.setdefault(name, [f"c-{n}" for n in range(table.rows)])
    history, kind = (
        history_table(table),
        one_of(draw, *TIMES, "missing", "ids", "channel", "bytes", "csv", "folder", "nobody", "empty", "names"),
    )
    if kind in TIMES:
        type_, value = TIMES[kind]
        history = history.set_column(3, "sent_at", pa.array([value(n) for n in range(history.num_rows)], type_))
    elif kind == "missing":
        history = history.drop_columns([one_of(draw, "customer_id", "retailer_id", "channel", "sent_at")])
    elif kind == "ids":
        odd = one_of(
            draw,
            pa.array([float(n) for n in range(history.num_rows)]),
            pa.array([[n] for n in range(history.num_rows)]),
            pa.nulls(history.num_rows),
            pa.array([b"\xff"] * history.num_rows),
        )
        history = history.set_column(0, "customer_id", odd)
    elif kind == "channel":
        history = history.set_column(2, "channel", pa.array(list(range(history.num_rows))))
    elif kind == "empty":
        history = history.slice(0, 0)
    elif kind == "names":
        history = history.rename_columns(["CUSTOMER_ID", "Retailer_id", "channel", "sent_at"])
    name, data = "history.parquet", parquet(history)
    if kind == "bytes":
        data = one_of(draw, b"", data[:-9], data[: len(data) // 2], b"PAR1", b"customer_id,retailer_id\n1,2\n")
    if kind == "csv" or (kind in ("text", "words", "epoch", "text without a zone", "missing") and chance(draw)):
        name = one_of(draw, "history.csv", "history.csv", "history.csv.gz", "history.tsv", "history.txt", "history")
        columns = {column: [_time(value) for value in history[column].to_pylist()] for column in history.column_names}
        data = csv_bytes(
            Table(
                columns,
                separator=one_of(draw, ",", ";", "\t"),
                encoding=one_of(draw, "utf-8", "utf-8", "utf-16", "utf-8-sig"),
            )
        )
        data = gzip.compress(data, mtime=0) if name.endswith("gz") and chance(draw) else data
    inputs.other[name] = data
    inputs.other["no-launch/x.txt"] = b"x"
    inputs.options["--history"] = [{"folder": "no-launch", "nobody": "nowhere.parquet"}.get(kind, name)]
    if "caps" not in inputs.engine:
        inputs.engine["caps"] = [{"channel": "email", "at_most": 1, "within": "P7D"}]
    inputs.bad[-1] += f" ({kind}, {name})"
    inputs.must = 2 if kind in ("folder", "nobody") else None


def _time(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime | date) else value


def odd_sticky(draw: Draw, inputs: Inputs) -> None:
    """Assignments of before that are none."""
    table, kind = (
        sticky_table(),
        one_of(
            draw,
            "missing",
            "types",
            "units",
            "bytes",
            "csv",
            "folder",
            "nobody",
            "empty",
            "nothing",
            "twice",
            "versions",
        ),
    )
    if kind == "missing":
        table = table.drop_columns([one_of(draw, *table.column_names)])
    elif kind == "types":
        table = table.set_column(
            3,
            "bucket_version",
            one_of(draw, pa.array(["x", "y", "z"]), pa.array([0.5, 1.5, 2.0]), pa.array([[1], [2], [3]])),
        )
    elif kind == "units":
        table = table.set_column(
            1,
            "unit",
            one_of(
                draw,
                pa.array([1, 2, 3]),
                pa.array([1.0, 2.5, float("nan")]),
                pa.array([[1], [2], [3]]),
                pa.array([b"\xff", b"a", b"b"]),
            ),
        )
    elif kind == "empty":
        table = table.slice(0, 0)
    elif kind == "nothing":
        table = table.set_column(2, "variant", pa.nulls(3))
    elif kind == "twice":
        table = pa.concat_tables([table, table])
    elif kind == "versions":
        table = table.set_column(3, "bucket_version", pa.array([-1, 2**62, 0]))
    data = one_of(draw, b"", b"PAR1PAR1", parquet(table)[:-7]) if kind == "bytes" else parquet(table)
    name = "sticky.csv" if kind == "csv" else "sticky.parquet"
    if kind == "csv":
        data = csv_bytes(Table(table.to_pydict(), separator=one_of(draw, ",", ";")))
    inputs.other[name], inputs.other["no-launch/x.txt"] = data, b"x"
    inputs.options["--sticky"] = [{"folder": "no-launch", "nobody": "nowhere.parquet"}.get(kind, name)]
    campaign = one_of(draw, *inputs.campaigns)
    if kind not in ("folder", "nobody", "missing", "bytes"):
        inputs.campaigns[campaign]["experiment"] = {
            "key": "split-0",
            "sticky": True,
            "variants": [{"key": "a"}, {"key": "b"}],
        }
    inputs.bad[-1] += f" ({kind})"
    inputs.must = 2 if kind in ("folder", "nobody", "missing", "bytes") else None


SIGNALS = "date,retailer_id,sent,bounced,complained\n2026-01-01,store-0,100,1,0\n2026-01-02,store-0,200,2,0\n"
ODD_SIGNALS: dict[str, bytes] = {
    "semicolons": SIGNALS.replace(",", ";").encode(),
    "UTF-16": SIGNALS.encode("utf-16"),
    "nothing": b"",
    "a header alone": SIGNALS.partition("\n")[0].encode(),
    "a column less": SIGNALS.replace(",complained", "").replace(",0\n", "\n").encode(),
    "words": SIGNALS.replace("100", "many").encode(),
    "fractions": SIGNALS.replace("100", "100.5").encode(),
    "negative": SIGNALS.replace("100", "-100").encode(),
    "huge": SIGNALS.replace("100", "9" * 400).encode(),
    "no day": SIGNALS.replace("2026-01-01", "2026-02-30").encode(),
    "twice": (SIGNALS + SIGNALS.partition("\n")[2]).encode(),
    "bytes": bytes(range(256)),
    "zipped": gzip.compress(SIGNALS.encode(), mtime=0),
    "other columns": b"a,b\n1,2\n",
}
TEMPLATES = (
    b"", b"{{", b"{% if %}", b"{{ name | nope }}", b"{% for x in (1..1000000000) %}{{ x }}{% endfor %}", b"\xff\xfe", b"{% include 'x' %}",
    b"{% assign a = 1 %}", "{{ 'é' }}".encode("latin-1"), b"{% raw %}", b"\x00", b"{{ name | truncate: 99999999999999999999 }}", b"{% if a %}" * 2_000,
)  # fmt: skip


def odd_workspace(draw: Draw, inputs: Inputs) -> None:
    """Signals of a warm-up, or a template, that cannot be read."""
    signals = chance(draw)
    kind = one_of(draw, *ODD_SIGNALS) if signals else one_of(draw, *range(len(TEMPLATES)))
    workspace: dict[str, Any] = {"url": "http://127.0.0.1:9/w/{retailer}", "key_env": "KEY_{retailer}"}
    if signals:
        inputs.lists["lists/signals.csv"] = ODD_SIGNALS[kind]
        workspace["pace"] = {"warm_up": {"started": "2026-01-01", "signals": "lists/signals.csv"}}
    else:
        inputs.lists["templates/plain.liquid"] = TEMPLATES[kind]
        workspace["templates"] = {"plain": "templates/plain.liquid"}
    inputs.engine["delivery"], inputs.engine["workspaces"] = {"vendor": "webhook"}, {"*": workspace}
    inputs.commands = ["validate"] if chance(draw) else ["validate", "launch"]
    inputs.bad[-1] += f" ({'signals' if signals else 'template'} {kind})"


FAULTS: dict[str, Callable[[Draw, Inputs], None]] = {
    "an odd list": odd_list, "an odd list too": odd_list, "odd earlier sends": odd_history, "odd assignments": odd_sticky, "an odd workspace": odd_workspace,
}  # fmt: skip
