"""Who must not be contacted is not, whatever form the list, the history or the id has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.factories import any_campaign, any_engine
from support.launching import Place, any_place

BLANKS = [" ", "\u00a0", "\u200b", "\ufeff", "\t"]
NOTHING = any_campaign(experiment=None)


def launched(root: Path, audience: Any = "spend >= 0", **changes: Any) -> Place:
    place = any_place(root, {**NOTHING, "audience": audience}, customers=9, **changes)
    assert place.launch() == 0
    return place


def reached(place: Place) -> set[str]:
    return {event["customer_id"] for event in place.events().values()}


@pytest.mark.parametrize(
    ("in_list", "of_customer"),
    [
        *[("c5@example.com", f"c5@example.com{blank}") for blank in BLANKS],
        *[(f"{blank}c5@example.com", "c5@example.com") for blank in BLANKS[:-1]],
        ("C5@Example.COM", "c5@example.com"),
        ("c5@example.com", "C5@EXAMPLE.com"),
    ],
)
@pytest.mark.parametrize("how", ["suppression", "audience"])
def test_an_address_on_a_list_is_found_whatever_its_case_and_blanks(
    tmp_path: Path, in_list: str, of_customer: str, how: str
) -> None:
    rule = {"file": "lists/out.csv", "column": "email"}
    place = launched(
        tmp_path,
        {"not": {"list": "lists/out.csv", "column": "email"}} if how == "audience" else "spend >= 0",
        engine=any_engine(**({"suppression_lists": [rule]} if how == "suppression" else {})),
        lists={"out.csv": f"email\n{in_list}\nnobody@example.com\n"},
        email=lambda n: of_customer if n == 5 else f"c{n}@example.com",
    )
    assert reached(place) == {f"c-{n}" for n in range(9) if n != 5}


def test_upper_and_lower_case_make_other_customers_ids(tmp_path: Path) -> None:
    engine = any_engine(suppression_lists=[{"file": "lists/out.csv"}])
    place = launched(tmp_path, engine=engine, lists={"out.csv": "customer_id\nC-5\nc-6\n"})
    assert reached(place) == {f"c-{n}" for n in range(9) if n != 6}


@pytest.mark.parametrize("blank", BLANKS)
def test_an_id_with_a_blank_around_it_is_a_dead_letter(tmp_path: Path, blank: str) -> None:
    place = launched(
        tmp_path,
        engine=any_engine(retailers={"store-2": {"opted_out": True}}),
        customer_id=lambda n: f"c-{n}{blank if n == 3 else ''}",
        retailer_id=lambda n: f"{blank if n == 5 else ''}store-{n % 3}",
    )
    assert {letter.reason for letter in place.dead_letters()} == {"bad_id"}
    assert len(place.dead_letters()) == 2
    assert reached(place) == {f"c-{n}" for n in range(9) if n % 3 != 2 and n != 3}


def test_blanks_in_a_history_do_not_lift_a_cap(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text(
        "retailer_id,customer_id,channel,sent_at\nstore-0, c-3,email,2026-03-30\n"
        "store-1 ,c-4,email,2026-03-30\nstore-2,c-5,email , 2026-03-30\n"
    )
    engine = any_engine(caps=[{"channel": "email", "at_most": 1, "within": "P7D"}])
    campaign = {**NOTHING, "schedule": {"start": "2026-04-01T12:00"}}
    place = any_place(tmp_path, campaign, customers=9, engine=engine)
    assert place.launch(f"--history={tmp_path / 'h.csv'}") == 0
    assert reached(place) == {f"c-{n}" for n in range(9) if n not in (3, 4, 5)}


@pytest.mark.parametrize("row", ["store-0,,email", ",c-3,email", "store-0,c-3, "])
def test_a_send_of_nobody_is_refused(tmp_path: Path, row: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "h.csv").write_text(f"retailer_id,customer_id,channel,sent_at\n{row},2026-03-30\n")
    place = any_place(tmp_path, NOTHING, customers=9)
    assert place.launch(f"--history={tmp_path / 'h.csv'}") == 2
    assert "h.csv:2" in capsys.readouterr().err
