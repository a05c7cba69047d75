"""Ids through whole launches: what a person wrote is who is sent to, and who is not."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from support.factories import SECRET, any_campaign, any_customers
from support.launching import Place, any_place

from runners.cli.main import main


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)


CHANNELS = {"email": {"address": "email"}, "sms": {"address": "phone"}}
LEGAL = [{"file": "lists/legal.csv"}]


def place_of(tmp_path: Path, *campaigns: dict[str, Any], lists: dict[str, str] | None = None, **engine: Any) -> Place:
    return any_place(
        tmp_path,
        *(campaigns or (any_campaign(experiment=None),)),
        engine={"channels": CHANNELS, **engine},
        lists=lists or {},
    )


def customers_with(ids: Any, **changes: Any) -> pa.Table:
    return any_customers(len(ids), customer_id=ids, email=lambda n: f"c{n}@example.com", **changes)


def sent_to(place: Place) -> set[str]:
    return {event["customer_id"] for event in place.events().values()}


def refusal(place: Place, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert place.launch(*more) == 2
    assert not (place.root / "events").exists()
    return capsys.readouterr().err


def test_floats_are_their_digits_or_dead_letters(tmp_path: Path) -> None:
    place = place_of(tmp_path, lists={"legal.csv": "customer_id\n1230000000000\n"}, suppression_lists=LEGAL)
    ids = [7.0, 1.23e12, 2.0**53, 12.5, float("nan"), float("inf"), 2.0**53 + 2, None]
    pq.write_table(customers_with(pa.array(ids)), tmp_path / "customers.parquet")
    assert place.launch() == 0
    assert sent_to(place) == {"7", "9007199254740992"}
    assert [row["customer_id"] for row in place.exposures() if row["reason"] == "suppression_list"] == ["1230000000000"]
    letters = place.dead_letters()
    assert sorted(letter.reason for letter in letters) == ["inexact_id"] * 4 + ["missing_id"]
    assert all("column customer_id is no exact id" in one.detail for one in letters if one.reason == "inexact_id")
    assert main(["check", str(place.output)]) == 0


@pytest.mark.parametrize("early", [True, False], ids=["among the first rows", "behind the first rows"])
def test_one_fraction_rewrites_no_other_id_of_a_csv_file(tmp_path: Path, early: bool) -> None:
    place = place_of(tmp_path, lists={"legal.csv": "id\n12.5\n1.10\n"}, suppression_lists=LEGAL)
    whole = [str(1_000_000_000_000 + n) for n in range(20_500)]
    odd = ["12.5", "1.10", "007", "7", "1e3", "true", "2026-01-01"]
    ids = [*odd, *whole] if early else [*whole, *odd]
    pacsv.write_csv(customers_with(ids).select(["customer_id", "retailer_id", "first_name", "email", "phone", "spend"]),
                    tmp_path / "customers.csv", pacsv.WriteOptions(quoting_style="none"))  # fmt: skip
    assert place.launch(f"--customers={tmp_path / 'customers.csv'}") == 0
    assert sent_to(place) == {*whole, *odd} - {"12.5", "1.10"}
    assert place.dead_letters() == []


def test_a_configuration_that_names_other_ids_reads_the_source_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(tmp_path, any_campaign(experiment=None, surprise=1))
    source = f"--customers={tmp_path / 'customers.csv'}"
    (tmp_path / "customers.csv").write_text("customer_id,retailer_id,first_name,email,phone,spend\n1.10,r,x,a@b.c,,5\n")
    refusal(place, capsys, source)
    place_of(tmp_path)
    assert place.launch(source) == 0
    assert sent_to(place) == {"1.10"}


NDJSON: list[tuple[str, list[str], set[str], list[str]]] = [
    ("texts", ['"007"', '"1.10"'], {"007", "1.10"}, []),
    ("whole numbers", ["7", "9007199254740993"], {"7", "9007199254740993"}, []),
    ("a fraction among whole numbers", ["7", "9007199254740993", "12.5"], {"7", "9007199254740993"}, ["wrong_type"]),
    ("floats", ["7.0", "12.5"], {"7"}, ["inexact_id"]),
]


@pytest.mark.parametrize(("ids", "sent", "refused"), [row[1:] for row in NDJSON], ids=[row[0] for row in NDJSON])
def test_ids_of_ndjson_that_are(tmp_path: Path, ids: list[str], sent: set[str], refused: list[str]) -> None:
    place = place_of(tmp_path)
    row = '{{"customer_id": {}, "retailer_id": "r", "first_name": "x", "email": "e{}@b.c", "phone": "", "spend": 5}}\n'
    (tmp_path / "c.ndjson").write_text("".join(row.format(text, n) for n, text in enumerate(ids)))
    assert place.launch(f"--customers={tmp_path / 'c.ndjson'}") == 0
    assert sent_to(place) == sent
    assert [letter.reason for letter in place.dead_letters()] == refused


NEVER: list[tuple[str, dict[str, Any], str, Any]] = [
    ("a struct", {}, "customer_id", pa.array([{"a": 1}] * 4)),
    ("bytes", {}, "retailer_id", pa.array([b"a"] * 4)),
    ("a list as an address", {}, "email", pa.array([["a@b.c"]] * 4)),
    ("booleans as units", {"experiment": {"key": "e", "unit": "member", "variants": [{"key": "a"}]}}, "member", [True] * 4),
    ("times that a list is looked up by", {"audience": {"not": {"list": "lists/legal.csv", "column": "born"}}}, "born",
     pa.array([datetime(2000, 1, 1)] * 4)),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "column", "values"), [row[1:] for row in NEVER], ids=[row[0] for row in NEVER])
def test_a_column_that_can_never_be_exact_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], column: str, values: Any
) -> None:
    place = place_of(tmp_path, any_campaign(**{"experiment": None, **changes}), lists={"legal.csv": "id\n7\n"})
    pq.write_table(any_customers(4, **{column: values}), tmp_path / "customers.parquet")
    text = refusal(place, capsys)
    assert f"= {column}\n    an id is text or a whole number, this is" in text


def test_units_lists_history_and_sticky_assignments_are_met_by_the_same_ids(tmp_path: Path) -> None:
    experiment = {"key": "e", "unit": "household", "sticky": True, "variants": [{"key": "a"}, {"key": "b"}]}
    campaign = any_campaign(experiment=experiment, audience={"not": {"list": "lists/legal.csv", "column": "household"}})
    caps = [{"channel": "email", "at_most": 1, "within": "P30D"}]
    place = place_of(tmp_path, campaign, lists={"legal.csv": "household\n5\n007\n"}, caps=caps)
    households = pa.array([5.0, 6.0, 7.0, 8.0, 8.5])
    table = any_customers(5, customer_id=[1e12 + n for n in range(5)], retailer_id=[1.0] * 5, household=households)
    pq.write_table(table, tmp_path / "customers.parquet")
    now = datetime.now()
    sends = {"customer_id": [10**12 + 1], "retailer_id": ["1"], "channel": ["email"], "sent_at": [now]}
    pq.write_table(pa.table(sends), tmp_path / "history.parquet")
    (tmp_path / "sticky.csv").write_text("experiment;unit;variant;bucket_version\ne;7;b;0\ne;8;a;0\n")
    assert place.launch(f"--history={tmp_path / 'history.parquet'}", f"--sticky={tmp_path / 'sticky.csv'}") == 0
    found = {row["customer_id"]: (row["outcome"], row["reason"], row["variant"]) for row in place.exposures()}
    capped = found.pop("1000000000001")
    assert capped[:2] == ("suppressed", "frequency_cap")
    assert found == {"1000000000002": ("emitted", None, "b"), "1000000000003": ("emitted", None, "a")}
    (letter,) = place.dead_letters()
    assert (letter.reason, json.loads(letter.data)["household"]) == ("inexact_id", 8.5)
    assert "column household" in letter.detail
    assert main(["check", str(place.output)]) == 0


def test_a_number_of_a_customer_is_a_number_in_a_condition_and_its_digits_to_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(tmp_path, any_campaign(experiment=None, audience="customer_id % 2 = 1"))
    pq.write_table(customers_with([float(n) for n in range(4)]), tmp_path / "customers.parquet")
    assert place.launch() == 0
    assert sent_to(place) == {"1", "3"}
    capsys.readouterr()
    assert main(["why", "3", "welcome", "--launch", str(place.output)]) == 0
    assert "3 of store-0, campaign welcome: emitted" in capsys.readouterr().out


RANKS: list[tuple[str, Any, str, int]] = [
    ("days", pa.array([date(2020, 1, 1), date(2021, 1, 1), None]), "highest", 1),
    ("days, the earliest", pa.array([date(2020, 1, 1), date(2021, 1, 1), None]), "lowest", 0),
    (
        "nanoseconds that a float would not tell apart",
        pa.array([2**60 + 2, 2**60 + 1, 2**60], pa.timestamp("ns")),
        "highest",
        0,
    ),
    ("large numbers", pa.array([2**63 - 2, 2**63 - 1, None]), "highest", 1),
    ("large numbers, the lowest", pa.array([2**63 - 1, 2**63 - 2, None]), "lowest", 1),
    ("large numbers without a sign", pa.array([2**64 - 2, 2**64 - 1, 1], pa.uint64()), "highest", 1),
    ("the lowest number there is", pa.array([None, -(2**63), None]), "highest", 1),
    ("floats", pa.array([-1.5, 0.5, float("-inf")]), "highest", 1),
    ("floats, the lowest", pa.array([-1.5, -0.5, float("inf")]), "lowest", 0),
    ("NaN", pa.array([float("nan"), 1.0, float("nan")]), "highest", 1),
    ("NaN, the lowest", pa.array([float("nan"), float("nan"), 1.0]), "lowest", 2),
    ("times of day", pa.array([1, 3, 2], pa.time32("s")), "highest", 1),
    ("durations", pa.array([1, 2, 3], pa.duration("us")), "lowest", 0),
]


@pytest.mark.parametrize(("values", "keep", "kept"), [row[1:] for row in RANKS], ids=[row[0] for row in RANKS])
def test_of_customers_with_one_address_the_one_is_kept_by(tmp_path: Path, values: Any, keep: str, kept: int) -> None:
    place = place_of(tmp_path, shared_address={"column": "value", "keep": keep})
    table = any_customers(3, email=["a@b.c", " A@b.c", "a@B.c "], retailer_id=["r"] * 3, value=values)
    pq.write_table(table, tmp_path / "customers.parquet")
    assert place.launch() == 0
    assert sent_to(place) == {f"c-{kept}"}


LISTS: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    ("a suppression list whose column is unclear", {"suppression_lists": LEGAL}, {"legal.csv": "c-1;2020\n"},
     "lists/legal.csv  columns = c-1, 2020"),
    ("an empty list of an audience", {}, {"out.csv": "customer_id\n"}, "lists/out.csv  customer_id = 0 rows"),
    ("codes that stand twice", {}, {"codes.csv": "code\nA\nA\n"}, "lists/codes.csv:3  code = A"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "lists", "told"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS])
def test_a_list_is_refused_before_anything_runs_and_by_validate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: dict[str, Any], lists: dict[str, str], told: str
) -> None:
    sound = {"legal.csv": "c-1\n", "out.csv": "c-1\n", "codes.csv": "code\nA\nB\n"}
    offer = {"id": "o", "kind": "code_list", "codes": "lists/codes.csv", "value": 5, "currency": "USD"}
    campaign = any_campaign(experiment=None, audience={"not": {"list": "lists/out.csv"}}, offers=[offer])
    place = place_of(tmp_path, campaign, lists={**sound, **lists}, **engine)
    assert told in refusal(place, capsys)
    assert main(["validate", "--campaigns", str(tmp_path / "campaigns")]) == 2
    assert told in capsys.readouterr().err


def test_one_code_list_of_two_offers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offers = [
        {"id": n, "kind": "code_list", "codes": f"lists/{n}codes.csv", "value": 5, "currency": "USD"}
        for n in ("", "./")
    ]
    offers = [{**offer, "id": name} for offer, name in zip(offers, ("one", "two"), strict=True)]
    place = place_of(tmp_path, any_campaign(experiment=None, offers=offers), lists={"codes.csv": "code\nA\nB\n"})
    text = refusal(place, capsys)
    assert "offers.1.codes = lists/./codes.csv\n    the offer welcome/one hands out these codes too" in text


def test_mistakes_of_histories_and_sticky_assignments_come_in_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(tmp_path)
    (tmp_path / "h.csv").write_text("customer_id|retailer_id|channel|sent_at\na|r|email|soon\n")
    (tmp_path / "s.csv").write_text("experiment,unit\ne,7\n")
    text = refusal(place, capsys, f"--history={tmp_path / 'h.csv'}", f"--sticky={tmp_path / 's.csv'}")
    assert f"{tmp_path / 'h.csv'}:2  sent_at = soon" in text
    assert f"{tmp_path / 's.csv'}  variant = missing" in text


def test_a_damaged_page_of_parquet_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(tmp_path)
    path = tmp_path / "customers.parquet"
    data = bytearray(path.read_bytes())
    data[4:40] = bytes(36)
    path.write_bytes(data)
    text = refusal_of_a_survey(place, capsys)
    assert f"{path}  --customers = \n    {path} is damaged" in text


def refusal_of_a_survey(place: Place, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert place.launch() == 2
    assert not list((place.root / "events").glob("*.avro"))
    return capsys.readouterr().err
