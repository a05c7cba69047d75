from __future__ import annotations

import itertools
import re
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.offers.codes import (
    ALPHABET,
    normalise_code,
    offer_code,
    offer_codes,
    verify_code,
    verify_for_customer,
    well_formed,
)

SECRET = b"sixteen random b"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FIELDS = st.tuples(TEXTS, TEXTS, TEXTS, TEXTS)
SECRETS = st.binary(min_size=1, max_size=80)
SOME = offer_code(SECRET, "launch-1", "five-off", "r1", "cust-1")


def test_a_code_is_three_groups_of_five_without_look_alikes() -> None:
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{5}-){2}[0-9A-HJKMNP-TV-Z]{5}", SOME)


def test_codes_never_change() -> None:
    assert SOME == "VA96S-5NF67-GZ0KN"
    assert offer_code(b"k" * 100, "L", "o", "é", "😀") == "PVRYK-ZGJ3Q-AZ89H"


@given(SECRETS, FIELDS)
def test_a_code_is_genuine_and_its_customers(secret: bytes, fields: tuple[str, str, str, str]) -> None:
    code = offer_code(secret, *fields)
    assert code == offer_code(secret, *fields)
    assert well_formed(code)
    assert verify_code(secret, code, *fields[:2])
    assert verify_for_customer(secret, code, *fields)


@given(SECRETS, TEXTS, TEXTS, st.lists(st.tuples(TEXTS | st.none(), TEXTS | st.none()), max_size=20))
def test_a_column_has_the_codes_of_its_rows(
    secret: bytes, launch: str, offer: str, rows: list[tuple[str | None, str | None]]
) -> None:
    retailers, customers = ([row[side] for row in rows] for side in (0, 1))
    codes = offer_codes(secret, launch, offer, pa.array(retailers, pa.string()), pa.array(customers, pa.string()))
    assert codes.type == pa.string()
    codes.validate(full=True)
    assert codes.to_pylist() == [
        None if retailer is None or customer is None else offer_code(secret, launch, offer, retailer, customer)
        for retailer, customer in rows
    ]


@pytest.mark.parametrize("length", [63, 64, 65, 200])
def test_a_column_takes_secrets_of_every_length(length: int) -> None:
    codes = offer_codes(b"k" * length, "L", "o", pa.array(["r"]), pa.array(["c"]))
    assert codes.to_pylist() == [offer_code(b"k" * length, "L", "o", "r", "c")]


@given(FIELDS, FIELDS)
def test_other_fields_give_another_code(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    codes = [offer_code(SECRET, *fields) for fields in (one, other)]
    assert (codes[0] == codes[1]) == (one == other)
    assert verify_for_customer(SECRET, codes[0], *other) == (one == other)


@pytest.mark.parametrize("place", range(3))
def test_a_character_that_moves_to_the_next_field_makes_another_code(place: int) -> None:
    fields = ["x1:y"] * 4
    moved = [*fields]
    moved[place], moved[place + 1] = fields[place][:-1], fields[place][-1] + fields[place + 1]
    assert offer_code(SECRET, *fields) != offer_code(SECRET, *moved)


def test_a_code_is_not_genuine_for_another_launch_offer_or_secret() -> None:
    assert verify_code(SECRET, SOME, "launch-1", "five-off")
    assert not verify_code(SECRET, SOME, "launch-2", "five-off")
    assert not verify_code(SECRET, SOME, "launch-1", "ten-off")
    assert not verify_code(SECRET + b"!", SOME, "launch-1", "five-off")


def test_a_code_with_a_right_check_character_alone_is_not_genuine() -> None:
    forged = [offer_code(b"guessed", "launch-1", "five-off", "r1", f"c{number}") for number in range(2_000)]
    assert all(map(well_formed, forged))
    assert not any(verify_code(SECRET, code, "launch-1", "five-off") for code in forged)


@pytest.mark.parametrize(
    "typed",
    [
        SOME.lower(),
        SOME.replace("-", ""),
        f" {SOME.replace('-', ' ')}\n",
        SOME.replace("-", "–"),
        SOME.replace("0", "O"),
    ],
)
def test_a_code_may_be_typed_carelessly(typed: str) -> None:
    assert normalise_code(typed) == SOME
    assert verify_code(SECRET, typed, "launch-1", "five-off")
    assert verify_for_customer(SECRET, typed, "launch-1", "five-off", "r1", "cust-1")


@pytest.mark.parametrize(("typed", "read"), [("O", "0"), ("o", "0"), ("I", "1"), ("i", "1"), ("L", "1"), ("l", "1")])
def test_a_look_alike_is_read_as_the_digit(typed: str, read: str) -> None:
    assert normalise_code(typed * 15) == "-".join([read * 5] * 3)


@pytest.mark.parametrize("typed", ["", "7", SOME[:-1], SOME + "0", SOME[:-1] + "U", SOME[:-1] + "é", "٣" * 15])
def test_what_can_be_no_code_is_none(typed: str) -> None:
    assert normalise_code(typed) is None
    assert not well_formed(typed)
    assert not verify_code(SECRET, typed, "launch-1", "five-off")
    assert not verify_for_customer(SECRET, typed, "launch-1", "five-off", "r1", "cust-1")


@given(FIELDS)
def test_every_single_wrong_character_is_caught(fields: tuple[str, str, str, str]) -> None:
    plain = offer_code(SECRET, *fields).replace("-", "")
    wrong = [
        plain[:place] + other + plain[place + 1 :] for place in range(15) for other in ALPHABET if other != plain[place]
    ]
    assert len(wrong) == 15 * 31
    assert not any(map(well_formed, wrong))


@given(FIELDS)
def test_every_exchange_of_two_characters_is_caught(fields: tuple[str, str, str, str]) -> None:
    plain = offer_code(SECRET, *fields).replace("-", "")
    for one, other in itertools.combinations(range(15), 2):
        letters = list(plain)
        letters[one], letters[other] = letters[other], letters[one]
        assert well_formed("".join(letters)) == (plain[one] == plain[other])


def test_twenty_thousand_codes_differ_and_use_every_character_evenly() -> None:
    customers = pa.array([f"cust{number:08d}" for number in range(20_000)])
    codes = offer_codes(SECRET, "launch-1", "five-off", pa.array(["r1"] * 20_000), customers).to_pylist()
    assert len(set(codes)) == 20_000
    for place in (0, 6, 9, 12, 15, 16):
        counts = Counter(code[place] for code in codes)
        assert set(counts) == set(ALPHABET)
        assert max(counts.values()) < 1.3 * 20_000 / 32


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="secret of the offer codes is empty"):
        offer_code(b"", "L", "o", "r", "c")
    with pytest.raises(ValueError, match="secret of the offer codes is empty"):
        offer_codes(b"", "L", "o", pa.array(["r"]), pa.array(["c"]))
