"""Receipts: written and read back, the outcome of an event with several, files that cannot be used."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.receipts_factory import ARRIVED, any_receipt, rejected, written

from schemas.contracts import ContractError, schema
from schemas.delivery import Receipt
from schemas.problems import InputError
from stores.deliveries.receipts import encode_receipts, find_receipts, open_receipts, read_receipts, write_receipts

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
maybe = st.none() | text
moment = st.integers(-(10**12), 10**13)
receipts = st.lists(
    st.builds(
        Receipt, *[text] * 6, maybe, text, maybe, st.sampled_from(["accepted", "rejected", "expired", "unknown"]),
        maybe, maybe, st.integers(0, 2**31 - 1), st.booleans(), moment, moment,
    )
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(receipts)
def test_receipts_are_read_back_as_they_were(tmp_path: Path, receipts: list[Receipt]) -> None:
    stored = read_receipts(write_receipts(str(tmp_path), "part-0", receipts))
    assert sorted(map(repr, stored)) == sorted(map(repr, receipts))


@settings(max_examples=40, deadline=None)
@given(receipts)
def test_a_body_is_what_fastavro_writes(receipts: list[Receipt]) -> None:
    for body, receipt in zip(encode_receipts(receipts).to_pylist(), receipts, strict=True):
        out = BytesIO()
        fastavro.schemaless_writer(out, schema("receipt"), receipt._asdict())
        assert body == out.getvalue()


def test_the_order_in_which_receipts_arrive_does_not_change_the_file(tmp_path: Path) -> None:
    two = [any_receipt(), any_receipt(batch_id=None, vendor_id=None)]
    one = write_receipts(str(tmp_path / "one"), "part-0", two)
    other = write_receipts(str(tmp_path / "other"), "part-0", iter(two[::-1]))
    assert Path(one).read_bytes() == Path(other).read_bytes()


def test_text_that_is_no_unicode_is_kept_as_escapes(tmp_path: Path) -> None:
    path = write_receipts(str(tmp_path), "part-0", [any_receipt(reason="bad \udcff byte"), any_receipt()])
    assert {receipt.reason for receipt in read_receipts(path)} == {"bad \\udcff byte", None}


def test_an_outcome_that_the_schema_does_not_know_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="dead"):
        write_receipts(str(tmp_path), "part-0", [any_receipt(outcome="dead")])
    assert not list(tmp_path.iterdir())


FIRST = any_receipt()
UNKNOWN = FIRST._replace(outcome="unknown", reason="timeout", vendor_id=None)
REJECTED = rejected(FIRST, settled_at=ARRIVED + 1_000)
EXPIRED = FIRST._replace(outcome="expired", reason="expired", batch_id=None, attempt=0)
OUTCOMES = {
    "one acceptance": ([FIRST], ("accepted", None)),
    "the same again after a crash": ([FIRST, FIRST, FIRST], ("accepted", None)),
    "an answer that came late": ([UNKNOWN, FIRST._replace(settled_at=ARRIVED + 9_000)], ("accepted", None)),
    "an answer that came before the unknown was written": ([FIRST, UNKNOWN], ("accepted", None)),
    "rejected, then accepted in a replay": ([REJECTED, FIRST], ("accepted", None)),
    "rejected, then expired after a replay": ([EXPIRED, REJECTED], ("expired", "expired")),
    "rejected, then unknown after a replay": ([REJECTED, UNKNOWN], ("unknown", "timeout")),
    "rejected, replayed, unknown, then accepted": (
        [REJECTED, UNKNOWN, FIRST._replace(settled_at=ARRIVED + 9_000)],
        ("accepted", None),
    ),
    "rejected over expired at the same time": (
        [EXPIRED, rejected(FIRST)],
        ("rejected", "invalid_address"),
    ),
    "expired over unknown": ([UNKNOWN, EXPIRED], ("expired", "expired")),
    "rejected twice: the last reason": (
        [rejected(FIRST, "gone", settled_at=ARRIVED + 5_000), REJECTED],
        ("rejected", "gone"),
    ),
}


@pytest.mark.parametrize(("several", "best"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_the_outcome_of_an_event_is_its_acceptance_or_else_its_last(
    tmp_path: Path, several: list[Receipt], best: tuple[str, str]
) -> None:
    for order in (several, several[::-1]):
        for place, receipt in enumerate(order):
            written(tmp_path, [receipt], f"part-{place}")
        con = open_receipts([str(tmp_path)])
        assert con.execute("SELECT outcome, reason FROM outcomes").fetchall() == [best]
        assert con.execute("SELECT count(*) FROM receipts").fetchall() == [(len(several),)]


def test_a_second_acceptance_does_not_move_the_time_of_the_first(tmp_path: Path) -> None:
    written(tmp_path, [any_receipt(settled_at=ARRIVED + 9), any_receipt(settled_at=ARRIVED + 5, vendor_id="d-0")])
    (row,) = open_receipts([str(tmp_path)]).execute("SELECT settled_at, vendor_id FROM outcomes").fetchall()
    assert row == (ARRIVED + 5, "d-0")


def test_receipts_of_other_launches_are_left_out_and_counted(tmp_path: Path) -> None:
    others = [any_receipt(event_id=f"o-{n}", launch_id=f"other-{n % 2}") for n in range(5)]
    one, two = written(tmp_path / "one", [any_receipt(), *others[:2]]), written(tmp_path / "two", others[2:])
    con = open_receipts([str(one), str(two), f"{one}/"], "launch-1")
    assert con.execute("SELECT event_id FROM receipts").fetchall() == [("e-1",)]
    counted = con.execute("SELECT launch_id, sum(receipts)::INT FROM others GROUP BY ALL ORDER BY ALL").fetchall()
    assert counted == [("other-0", 3), ("other-1", 2)]


def test_a_folder_without_receipts_yet_has_no_outcomes(tmp_path: Path) -> None:
    written(tmp_path, [])
    (tmp_path / ".part-1.avro.tmp").write_bytes(b"being written")
    assert open_receipts([str(tmp_path)], "launch-1").execute("FROM outcomes").fetchall() == []


def test_the_receipts_of_one_event_come_in_the_order_of_time(tmp_path: Path) -> None:
    late = any_receipt(settled_at=ARRIVED + 60_000, attempt=2)
    written(tmp_path, [late, any_receipt(event_id="e-2")])
    written(tmp_path, [UNKNOWN, any_receipt(event_id="e-3", reason="about e-1")], "part-1")
    assert find_receipts([str(tmp_path)], "e-1") == [UNKNOWN, late]


def test_a_file_of_an_earlier_or_later_schema_is_read_through_the_present_one(tmp_path: Path) -> None:
    other = json.loads(json.dumps(schema("receipt")))
    other["fields"] = [f for f in other["fields"] if f["name"] != "resent"]
    other["fields"].append({"name": "cost", "type": "double", "default": 0.0})
    record = {**any_receipt()._asdict(), "cost": 0.5}
    with (tmp_path / "part-0.avro").open("wb") as file:
        fastavro.writer(file, other, [record], codec="deflate")
    assert read_receipts(str(tmp_path / "part-0.avro")) == [any_receipt()]


def other_records(path: Path) -> None:
    with path.open("wb") as file:
        fastavro.writer(file, schema("dead_letter"), [])


def cut(path: Path, keep: int) -> None:
    write_receipts(str(path.parent), path.stem, [any_receipt(event_id=f"e-{n}") for n in range(50)])
    path.write_bytes(path.read_bytes()[:keep])


def torn_block(path: Path) -> None:
    """All of a whole file, and the first byte of the block after it."""
    write_receipts(str(path.parent), path.stem, [any_receipt()])
    path.write_bytes(path.read_bytes() + b"\x80")


BAD: dict[str, tuple[Any, str]] = {
    "an empty file": (lambda path: path.write_bytes(b""), "no whole file of receipts"),
    "no Avro at all": (lambda path: path.write_text("event_id,outcome\n"), "no whole file of receipts"),
    "cut in the header": (lambda path: cut(path, 900), "no whole file of receipts"),
    "cut in a record": (lambda path: cut(path, 4_000), "no whole file of receipts"),
    "cut in the next block's first number": (torn_block, "no whole file of receipts"),
    "other records, none of them": (other_records, "not campaigns.Receipt"),
    "a folder": (lambda path: path.mkdir(), "cannot be read"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD.keys())
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, spoil: Any, message: str) -> None:
    written(tmp_path, [any_receipt()])
    spoil(tmp_path / "bad-1.avro")
    spoil(tmp_path / "bad-2.avro")
    with pytest.raises(InputError) as caught:
        open_receipts([str(tmp_path)])
    assert [problem.file for problem in caught.value.problems] == [str(tmp_path / f"bad-{n}.avro") for n in (1, 2)]
    assert all(message in problem.fix for problem in caught.value.problems)


def test_every_cut_is_noticed_but_the_one_between_blocks(tmp_path: Path) -> None:
    whole = Path(write_receipts(str(tmp_path), "part-0", [any_receipt(event_id=f"e-{n}") for n in range(3)]))
    data = whole.read_bytes()
    header = data.index(data[-16:]) + 16
    for keep in {*range(0, len(data), 7), *range(header - 3, header + 4), len(data) - 1} - {header}:
        whole.write_bytes(data[:keep])
        with pytest.raises(InputError):
            read_receipts(str(whole))


def test_a_folder_that_is_not_there_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder; give the folder that holds the receipts"):
        open_receipts([str(tmp_path / "nowhere")])


def test_the_parent_folder_is_refused_with_the_right_one(tmp_path: Path) -> None:
    written(tmp_path / "receipts", [any_receipt()])
    with pytest.raises(InputError, match=r"holds no receipts itself; give .*receipts"):
        open_receipts([str(tmp_path)])
