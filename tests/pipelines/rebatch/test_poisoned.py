"""One event never stops the job: each that cannot be sent is a dead letter, its neighbours are sent once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest
from support.containers import block, write_container
from support.delivering import NOW, Delivery, any_events

from runners.sandbox.process import Sandbox

pytestmark = pytest.mark.usefixtures("built_in")
END_OF_TIME = (1 << 63) - 1
OFFER = {"id": "five", "kind": "fixed", "code": None, "value": "5.00", "currency": "USD"}


@pytest.fixture
def delivery(tmp_path: Path, sandbox: Sandbox) -> Delivery:
    """From a folder to the sandbox."""
    return Delivery(tmp_path, sandbox.url).configure()


def bodies(name: str, count: int = 1, **changes: Any) -> dict[str, bytes]:
    """Event ids and bodies of events with some changes."""
    return {event_id: body for event_id, (body, _) in any_events(count, name, **changes).items()}


def put(delivery: Delivery, name: str, *blocks: bytes) -> None:
    """A file of events in these blocks."""
    write_container(delivery.root / "events" / f"{name}.avro", blocks)


def run_twice(delivery: Delivery, sandbox: Sandbox) -> dict[str, Any]:
    """The counts of the first of two runs; the second, which finds the same events, sends nothing."""
    assert delivery.run("--drain") == 0
    summary, accepted = delivery.summary(), sandbox.accepted()
    assert delivery.run("--drain") == 0
    assert sandbox.accepted() == accepted
    return summary


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"offers": [{**OFFER, "expires_at": NOW * 1_000}]}, "offers[0].expires_at"),
        ({"expires_at": NOW * 1_000_000}, "expires_at"),
        ({"deliver_after": NOW * 1_000}, "deliver_after"),
        ({"emitted_at": -(1 << 63)}, "emitted_at"),
    ],
)
def test_an_event_with_a_time_that_is_none_is_a_dead_letter_and_its_neighbours_are_sent_once(
    delivery: Delivery, sandbox: Sandbox, changes: dict[str, Any], field: str
) -> None:
    good, bad = bodies("good", 20), bodies("bad", 2, **changes)
    ordered = list(good.values())
    put(delivery, "part-0", block(*ordered[:10], *bad.values(), *ordered[10:]))
    summary = run_twice(delivery, sandbox)
    assert sandbox.accepted() == dict.fromkeys(good, 1)
    assert (summary["read"], summary["dead_lettered"], summary["accepted"]) == (22, 2, 20)
    letters = delivery.letters()
    assert sorted(one.data for one in letters) == sorted(bad.values())
    for letter in letters:
        assert (letter.step, letter.reason) == ("Decode", "bad_time")
        assert letter.detail.startswith(f"{field} is ")
        assert json.loads(letter.trace)["event_id"] in bad


def test_a_negative_expiry_is_expired_and_never_sent(delivery: Delivery, sandbox: Sandbox) -> None:
    good, over = bodies("good", 5), bodies("over", 3, expires_at=-NOW) | bodies("zero", 1, expires_at=0)
    put(delivery, "part-0", block(*good.values(), *over.values()))
    summary = run_twice(delivery, sandbox)
    assert sandbox.accepted() == dict.fromkeys(good, 1)
    assert summary["expired"] == 4
    assert delivery.outcomes() == {**dict.fromkeys(good, "accepted"), **dict.fromkeys(over, "expired")}


@pytest.mark.parametrize("at", [253_402_300_799_999, END_OF_TIME])
def test_what_is_due_at_the_end_of_time_waits(delivery: Delivery, sandbox: Sandbox, at: int) -> None:
    good, later = bodies("good", 5), bodies("later", 2, deliver_after=at, expires_at=None)
    put(delivery, "part-0", block(*good.values(), *later.values()))
    summary = run_twice(delivery, sandbox)
    assert sandbox.accepted() == dict.fromkeys(good, 1)
    assert (summary["left_waiting"], summary["missing"]) == (2, 0)
    assert delivery.letters() == []


def test_every_kind_of_broken_record_is_a_dead_letter_with_its_bytes(delivery: Delivery, sandbox: Sandbox) -> None:
    good = bodies("good", 6)
    one, two, three, four, five, six = good.values()
    no_text = bodies("text", recipient="xxxx@")
    (no_utf8,) = (body.replace(b"xxxx@", b"\xff\xfe\xfd\xfc@") for body in no_text.values())
    (nan,) = bodies("nan", properties={"score": float("nan")}).values()
    (nobody,) = bodies("nobody", customers=lambda number: "").values()
    put(delivery, "part-0", block(one, no_utf8, two, nan, nobody, three), block(four[:60], count=1), block(five))
    put(delivery, "part-1", block(six))
    foreign = {"type": "record", "name": "Foreign", "fields": [{"name": "event_id", "type": "string"}]}
    with (delivery.root / "events" / "other.avro").open("wb") as file:
        fastavro.writer(file, foreign, [{"event_id": "theirs"}])
    summary = run_twice(delivery, sandbox)
    assert sandbox.accepted() == {name: 1 for name, body in good.items() if body != four}
    letters = {letter.data: letter for letter in delivery.letters()}
    assert letters.keys() == {no_utf8, nan, nobody, four[:60], b"\x0ctheirs"}
    assert Counter(letter.reason for letter in letters.values()) == {
        "broken_bytes": 2, "unusable_event": 2, "missing_attributes": 1,
    }  # fmt: skip
    assert '"name": "Foreign"' in letters[b"\x0ctheirs"].detail
    assert (summary["read"], summary["dead_lettered"], summary["accepted"]) == (10, 5, 5)


def test_an_event_that_breaks_its_template_is_a_dead_letter_and_its_neighbours_are_sent_once(
    delivery: Delivery, sandbox: Sandbox
) -> None:
    delivery.configure({"*": {"templates": {"plain": "plain.liquid"}}})
    (delivery.campaigns / "plain.liquid").write_text("{% if size %}{{ 10 | divided_by: size }}{% endif %}")
    good, bad = bodies("good", 20), bodies("bad", 1, properties={"size": 0})
    put(delivery, "part-0", block(*good.values(), *bad.values()))
    summary = run_twice(delivery, sandbox)
    assert sandbox.accepted() == dict.fromkeys(good, 1)
    assert summary["rejected"] == 1
    (letter,) = delivery.letters()
    assert (letter.reason, [letter.data]) == ("template_error", list(bad.values()))
