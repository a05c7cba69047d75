"""What can be wrong in a YAML file: its bytes, its fields, its conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from bench.input_fuzz.customers import Draw, chance, one_of
from bench.input_fuzz.inputs import HUGE_NUMBER, Files, Inputs
from schemas.campaigns.audience import NamedAudience
from schemas.campaigns.campaign import Campaign
from schemas.campaigns.engine import EngineConfig

Path = tuple[str | int, ...]
VALUES: tuple[Any, ...] = (
    None, "", " ", [], {}, True, False, -1, 0, 1, 0.5, 1.5, 10**30, -(10**30), 1e308, float("nan"), float("inf"), HUGE_NUMBER,
    "x", "*", "a\nb", "\u202e\u200b", "é" * 300, "a" * 20_000, "../../etc/passwd", "/etc/passwd", "C:\\x", "-1", "1e400", "NaN",
    "2026-13-45", "2026-02-30T25:61", "9999-12-31T23:59:59", "9999-12-31T23:59:59Z", "0001-01-01T00:00", "2026-04-01",
    "P99999999D", "P100000000D", "P1000000000Y", "P0D", "-P1D", "PT0.0000001S", "24:00", "23:59:59.999999", "21:00",
    [[]], [None], [1, 2, 3], ["x", "x"], {"a": {"b": 1}}, {"": 1}, {"x": "y"}, [{}], [0.5, 0.5], ["21:00", "08:00"],
    "orders > 1", "lists/none.csv", "customer_id", "none", "email", "Europe/Nowhere", "utc", "$HOME", "{retailer}", "${x}", "\ud800",
    "http://[::1", "http://x y/", "file:///etc/passwd", "2026-04-01T09:00+99:99", "1_000", "0x10", "1.10", "+1", "=1+1",
)  # fmt: skip
SQL = (
    "first_name LIKE 'a' ESCAPE 'ab'", "CAST(first_name AS INTEGER) > 0", "regexp_matches(first_name, '(')", "1 / 0 > 0", "orders % 0 = 0",
    "date_part('foo', launched_at) = 1", "strptime('x', '%Y') > launched_at", "chr(-1) = ''", "chr(orders - 5) = 'x'", "repeat(first_name, 1000000) = ''",
    "substr(first_name, 9223372036854775807) = ''", "substr(first_name, -9223372036854775808, 9223372036854775807) = ''",
    "orders * 9223372036854775807 > 0", "exp(1e10) > 0", "sqrt(-1 - orders) > 0", "ln(orders) > 0", "make_date(orders * 9999999, 1, 1) IS NULL",
    "launched_at + to_years(300000 * orders) > launched_at", "launched_at + to_years(2147483647) > launched_at", "to_timestamp(1e300) > launched_at",
    "epoch_ms(9223372036854775807) > launched_at", "timezone('Nowhere/Land', launched_at) IS NULL", "timezone(first_name, launched_at) IS NULL",
    "spend > (SELECT 1)", "spend > 0; DROP TABLE customers", "spend > 0 --", "/* spend > 0", "spend >", "(((((spend > 0", "spend = 'x'", "x > 1",
    "now() > launched_at", "random() > 0.5", "getenv('HOME') = ''", "length(read_text('/etc/passwd')) > 0", "COLUMNS(*) > 1", "*", "sum(spend) > 1",
    "row_number() OVER () > 1", "list_transform([1], x -> x)[1] = 1", "$1", "?", "'a'", "1", "NULL", "first_name", "\"unknown\" = 1", "x'00' = 'a'",
    "first_name COLLATE NOCASE = 'ann'", "spend::JSON IS NULL", "CAST(spend AS STRUCT(a INT)).a = 1", "string_split(first_name, '')[1] = 'a'",
    "string_split(first_name, 'a')[9999999999999] = 'a'", "first_name ~ '['", "first_name SIMILAR TO '('", "regexp_extract(first_name, '(a', 5) = ''",
    "regexp_matches(first_name, first_name || '(')", "CAST('9" + "9" * 400 + "' AS BIGINT) > 0", "9" * 400 + " > spend", "1e400 > spend", "first_name = '\x00'",
    "first_name = U&'\\d800'", "levenshtein(first_name, NULL) = 0", "launched_at", "strftime(launched_at, '%') = ''", "strftime(launched_at, first_name) = ''",
    "CAST(first_name AS DATE) > launched_at", "CAST(spend AS TINYINT) > 0", "CAST(first_name AS BOOLEAN)", "CAST(first_name AS UUID) IS NULL",
    " OR ".join(["spend > 1"] * 900), "(" * 400 + "spend > 1" + ")" * 400, "NOT " * 500 + "true", "NOT " * 240 + "true", "bar(orders, 0, 1) = ''", "hash(first_name) > 0",
    "date_trunc('x', launched_at) IS NULL", "date_diff(first_name, launched_at, launched_at) = 1", "array_extract([1], orders) = 1", "spend >= ALL (1)",
    "struct_extract({'a': 1}, first_name) = 1", "map_extract(MAP {'a': 1}, first_name)[1] = 1", "translate(first_name, NULL, 'a') = ''", "spend IN ()",
    "\ufeffspend > 1", "spend > 1", "spend\u00a0> 1", "spend ＞ 1", "'", "\"", "\\", ";", "--", "TRUE;", "EXISTS (SELECT 1)", "make_timestamp(9223372036854775807) > launched_at",
    "CAST(-orders AS UTINYINT) > 0", "CAST(9223372036854775807 + orders AS BIGINT) > 0", "date_sub('year', launched_at, make_date(-5877641, 6, 25)) > 0", "round(spend, 2147483647) > 0",
    "pow(10, 1000 * orders) > 0", "1 << orders * 9 > 0", "-1 << 1 > 0", "ascii(first_name) > 0", "unicode('') > 0", "left(first_name, -9223372036854775808) = ''", "lpad('a', 9, 'b') = 'a'",
)  # fmt: skip


def _fields(model: Any) -> list[Path]:
    """The place of every field of a file, from its JSON Schema; an entry of a list is 0, one of a mapping is a name."""
    schema = model.model_json_schema()
    return sorted(set(_places(schema, schema.get("$defs", {}), (), 0)), key=str)


def _places(part: dict[str, Any], parts: dict[str, Any], path: Path, depth: int) -> Iterator[Path]:
    if "$ref" in part:
        part = parts[part["$ref"].rpartition("/")[2]]
    if path:
        yield path
    if depth > 7:
        return
    for name, inner in part.get("properties", {}).items():
        yield from _places(inner, parts, (*path, name), depth + 1)
    for inner in [*part.get("anyOf", ()), *part.get("oneOf", ())]:
        yield from _places(inner, parts, path, depth + 1)
    if isinstance(part.get("items"), dict):
        yield from _places(part["items"], parts, (*path, 0), depth + 1)
    if isinstance(part.get("additionalProperties"), dict):
        yield from _places(part["additionalProperties"], parts, (*path, one_name(path)), depth + 1)


def one_name(path: Path) -> str:
    """A name that a mapping is likely to have."""
    return {"channels": "email", "templates": "plain", "properties": "p0"}.get(str(path[-1]) if path else "", "*")


FIELDS = {"engine": _fields(EngineConfig), "audience": _fields(NamedAudience), "campaign": _fields(Campaign)}


def _kind(name: str) -> str:
    return "engine" if name == "engine.yaml" else "audience" if name.startswith("audiences/") else "campaign"


def put(data: Any, path: Path, value: Any) -> None:
    """Set a value at a place of nested data; what is not there is made."""
    for part, following in pairwise(path):
        inner = _get(data, part)
        if not isinstance(inner, list if isinstance(following, int) else dict):
            inner = [] if isinstance(following, int) else {}
            _set(data, part, inner)
        data = inner
    _set(data, path[-1], value)


def _get(data: Any, part: str | int) -> Any:
    if isinstance(data, list):
        return data[part] if isinstance(part, int) and part < len(data) else None
    return data.get(part)


def _set(data: Any, part: str | int, value: Any) -> None:
    if isinstance(data, list) and isinstance(part, int) and part >= len(data):
        data.append(value)
    else:
        data[part] = value


def _some_file(draw: Draw, inputs: Inputs) -> str:
    return str(one_of(draw, *inputs.file_names()))


def odd_field(draw: Draw, inputs: Inputs) -> None:
    """Any field of any file gets any value."""
    name = _some_file(draw, inputs)
    path = one_of(draw, *FIELDS[_kind(name)])
    if "id" in path and path != ("id",):
        inputs.facts.codes.clear()
    put(inputs.document(name), path, one_of(draw, *VALUES))
    _forget(inputs)


def _forget(inputs: Inputs) -> None:
    """Lists and columns may be others now."""
    inputs.facts.never.clear()
    inputs.facts.never_of.clear()
    inputs.facts.codes.clear()
    inputs.facts.customers = None


def unknown_key(draw: Draw, inputs: Inputs) -> None:
    """A field that does not exist."""
    name = _some_file(draw, inputs)
    inputs.document(name)[
        one_of(draw, "surprise", "audiense", "Channel", "", "a b", "id ", "é", "__class__", "x" * 300)
    ] = one_of(draw, 1, "x", None, {})
    inputs.must = 2


def lost_key(draw: Draw, inputs: Inputs) -> None:
    """A field that must stand is missing."""
    name = one_of(draw, *inputs.campaigns)
    del inputs.campaigns[name][one_of(draw, "id", "surface", "channel", "audience")]
    inputs.must = 2


def odd_name(draw: Draw, inputs: Inputs) -> None:
    """Something that is named and does not exist."""
    data = inputs.campaigns[one_of(draw, *inputs.campaigns)]
    kind = one_of(draw, "audience", "list", "channel", "offer", "column", "unit", "retailer", "outside", "folder")
    if kind in ("list", "outside", "folder"):
        data["audience"] = {
            "list": {"list": "lists/none.csv", "outside": "lists/../../customers.parquet", "folder": "lists/folder"}[
                kind
            ]
        }
        inputs.other["campaigns/lists/folder/"] = b""
    elif kind == "audience":
        data["audience"] = {"any": ["true", {"not": {"audience": "nobody-wrote-it"}}]}
    elif kind == "column":
        data["audience"] = {
            "list": next(iter(inputs.lists), "lists/none.csv"),
            "column": one_of(draw, "cookie", "", "signed up", "spend; --"),
        }
    elif kind == "unit":
        data["experiment"] = {"key": "e", "unit": one_of(draw, "cookie", " ", "a\x00b"), "variants": [{"key": "a"}]}
    elif kind == "offer":
        data.setdefault("content", {})["offers"] = ["not-there"]
    else:
        data["channel" if kind == "channel" else "retailers"] = "fax" if kind == "channel" else ["store-999"]
    inputs.must = None if kind == "retailer" else 2
    inputs.facts.never_of.clear()
    inputs.facts.codes.clear()


def cyclic(draw: Draw, inputs: Inputs) -> None:
    """Named audiences that contain themselves."""
    inputs.audiences["regulars"] = {
        "audience": one_of(draw, {"audience": "others"}, {"any": ["true", {"not": {"audience": "regulars"}}]})
    }
    inputs.campaigns[one_of(draw, *inputs.campaigns)]["audience"] = {"audience": "others"}
    inputs.must = 2
    inputs.facts.never_of.clear()


def deep(draw: Draw, inputs: Inputs) -> None:
    """An audience of many levels, or of many branches."""
    node: Any = "spend >= 0"
    for _ in range(one_of(draw, 20, 90, 200, 400)):
        node = {one_of(draw, "all", "any"): [node]} if chance(draw, 40) else {"not": node}
    if chance(draw, 3):
        node = {"any": [f"orders = {n}" for n in range(one_of(draw, 100, 500))]}
    inputs.campaigns[one_of(draw, *inputs.campaigns)]["audience"] = node
    inputs.facts.never_of.clear()


def odd_sql(draw: Draw, inputs: Inputs) -> None:
    """A condition or a property that is no SQL, may not stand, or fails at run time."""
    text = one_of(draw, *SQL)
    data = inputs.campaigns[one_of(draw, *inputs.campaigns)]
    place = draw_place(draw)
    if place == "when":
        data["offers"] = [{"id": "five", "kind": "fixed", "code": "X", "when": text}, {"id": "one", "kind": "fixed"}]
        inputs.facts.codes.clear()
    elif place == "property":
        data.setdefault("content", {}).setdefault("properties", {})["odd"] = text
    elif place == "named":
        inputs.audiences["regulars"] = {"audience": text}
    else:
        data["audience"] = {"all": [text, data["audience"]]} if place == "audience" else {"not": text}
        if place == "not":
            inputs.facts.never_of.clear()


def draw_place(draw: Draw) -> str:
    """Where SQL may stand."""
    return str(one_of(draw, "audience", "not", "when", "property", "named"))


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "a key twice": lambda data: data + data.splitlines(keepends=True)[0],
    "an alias": lambda data: data + b"\nx: &a [1]\ny: *a\n",
    "a merge key": lambda data: data + b"\n<<: {x: 1}\n",
    "a tag": lambda data: data + b"\nx: !!python/object/apply:os.system ['id']\n",
    "two documents": lambda data: data + b"\n---\n" + data,
    "a tab": lambda data: data.replace(b"  ", b"\t", 1) + b"\n\tx: 1",
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode("utf-8", "ignore").encode("utf-16"),
    "Latin-1": lambda data: data + b"\n# caf\xe9\n",
    "a NUL": lambda data: data + b"\nx: \x00\n",
    "a control character": lambda data: data + b'\ny: "\x1b[31m"\n',
    "an escaped control character": lambda data: data + b'\n"\\x1b[31m\\0": "\\e\\0"\n',
    "nothing": lambda data: b"",
    "a comment alone": lambda data: b"# soon\n",
    "a list": lambda data: b"- 1\n- 2\n",
    "a word": lambda data: b"hello",
    "a broken end": lambda data: data[: len(data) * 2 // 3],
    "a broken end in quotes": lambda data: data + b'\nx: "abc',
    "brackets": lambda data: data + b"\nx: " + b"[" * 3_000,
    "closed brackets": lambda data: data + b"\nx: " + b"[" * 900 + b"]" * 900,
    "a megabyte": lambda data: data + b"\n#" + b"x" * 1_100_000,
    "a list as a key": lambda data: data + b"\n? [a, b]\n: 1\n",
    "a mapping as a key": lambda data: data + b"\n? {a: b}\n: 1\n",
    "a number as a key": lambda data: data + b"\n1: 1\ntrue: 2\nnull: 3\n",
    "a huge number": lambda data: data + b"\nx: " + b"9" * 5_000 + b"\n",
    "carriage returns": lambda data: data.replace(b"\n", b"\r"),
    "random bytes": lambda data: bytes(range(256)),
    "zip": lambda data: b"PK\x03\x04" + data,
}
_MAY = {"a byte order mark", "UTF-16", "carriage returns", "a broken end", "a tab", "a merge key"}


def odd_bytes(draw: Draw, inputs: Inputs) -> None:
    """A YAML file whose bytes are not those of sound YAML."""
    name, kind = f"campaigns/{_some_file(draw, inputs)}", one_of(draw, *BYTES)

    def edit(files: Files) -> None:
        files[name] = BYTES[kind](files[name])

    inputs.edits.append(edit)
    inputs.bad[-1] += f" ({kind} in {name})"
    inputs.must = None if kind in _MAY else 2
    _forget(inputs)


def odd_file(draw: Draw, inputs: Inputs) -> None:
    """A file that is missing, a folder in its place, or one more."""
    kind = one_of(draw, "no engine", "no campaigns", "folder", "twin", "odd name", "link")

    def edit(files: Files) -> None:
        names = [name for name in files if name.startswith("campaigns/") and name.count("/") == 1]
        if kind == "no engine":
            del files["campaigns/engine.yaml"]
        elif kind == "no campaigns":
            for name in names:
                if not name.endswith("engine.yaml"):
                    del files[name]
        elif kind == "folder":
            files["campaigns/more.yaml/"] = b""
        elif kind == "twin":
            files["campaigns/twin.yaml"] = files[next(name for name in names if not name.endswith("engine.yaml"))]
        elif kind == "odd name":
            files["campaigns/audiences/Ünder Score.yaml"] = b"audience: 'true'\n"
        else:
            files["campaigns/audiences/deep/x.yaml"] = b"audience: 'true'\n"

    inputs.edits.append(edit)
    inputs.bad[-1] += f" ({kind})"
    inputs.must = None if kind in ("odd name", "link") else 2


FAULTS: dict[str, Callable[[Draw, Inputs], None]] = {
    "an odd field": odd_field, "an odd field too": odd_field, "an unknown key": unknown_key, "a lost key": lost_key, "an odd name": odd_name,
    "a cyclic audience": cyclic, "a deep audience": deep, "odd SQL": odd_sql, "odd SQL too": odd_sql, "odd bytes": odd_bytes, "an odd file": odd_file,
}  # fmt: skip
