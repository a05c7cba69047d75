"""Make odd campaign events from a seed: their values, bytes or attributes are wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.deliveries import Event, make_event, on_the_wire

TEXTS = (
    "event_id", "launch_id", "campaign_id", "campaign_version", "retailer_id", "customer_id", "recipient", "channel",
    "vendor_campaign", "template", "trace",
)  # fmt: skip
TIMES = ("deliver_after", "expires_at", "emitted_at", "offers")
_ODD = (
    "", " ", "\0", "\n", "null", "../../x", ".", "%00", "{{ 1 | divided_by: 0 }}", "Zoë 🧀", "\u202e", "\ufeff", "\uffff",
    '"', "'; DROP TABLE", "\\", "a" * 256, "b" * 257, "c" * 5_000, "🧀" * 300, "<script>", "-1", "e" * 40_000,
)  # fmt: skip
_KEYS = ("size", "name", "event_id", "content", "", "\0", "customer_id", "offers", "a.b", "é", "k" * 3_000)


class Mutant(NamedTuple):
    """An odd message: its mutation, body and attributes, and whether the body is still a whole record."""

    what: str
    body: bytes
    attributes: dict[str, str]
    whole: bool


class Mutations:
    """Odd events, the same for the same seed; none has the id, customer or body of another."""

    def __init__(self, seed: int, now: int) -> None:
        self._rnd, self._now, self._number = random.Random(seed), now, 0
        self._of_values = (self._time, self._text, self._properties, self._offers, self._experiment, self._several)
        self._of_bytes = (self._flip, self._cut, self._longer, self._noise, self._varint)
        self._of_attributes = (self._dropped, self._foreign, self._odd_attribute, self._huge, self._many)

    def chance(self, share: float) -> bool:
        """True in so many of all cases."""
        return self._rnd.random() < share

    def neighbour(self) -> Event:
        """An event that is as it should be."""
        self._number += 1
        retailer = f"store-{self._rnd.randrange(12)}"
        return make_event(self._rnd, self._number, retailer, self._now)

    def value(self) -> Mutant:
        """An event with odd values, written as a record of its schema, with the attributes that belong to it."""
        event = self.neighbour()
        change = self._rnd.choice(self._of_values)
        what = change(event)
        ((body, attributes),) = on_the_wire([event])
        return Mutant(what, body, attributes, True)

    def bytes_(self) -> Mutant:
        """An event whose bytes something happened to; it may still be a record."""
        ((body, attributes),) = on_the_wire([self.neighbour()])
        change = self._rnd.choice(self._of_bytes)
        return Mutant(change.__name__.strip("_"), change(body), attributes, False)

    def attributes(self) -> Mutant:
        """An event with odd attributes."""
        ((body, attributes),) = on_the_wire([self.neighbour()])
        change = self._rnd.choice(self._of_attributes)
        change(attributes)
        return Mutant(change.__name__.strip("_"), body, attributes, True)

    def any(self) -> Mutant:
        """One of the three, or an event with two of them."""
        kind = self._rnd.random()
        if kind < 0.5:
            return self.value()
        if kind < 0.7:
            return self.bytes_()
        if kind < 0.9:
            return self.attributes()
        first = self.value()
        change: Callable[[bytes], bytes] = self._rnd.choice(self._of_bytes)
        return first._replace(what=f"{first.what}, {change.__name__.strip('_')}", body=change(first.body), whole=False)

    def _a_time(self) -> int:
        rnd = self._rnd
        some = (
            0, -1, 1, -(1 << 63), (1 << 63) - 1, 1 << 62, 253_402_300_799_999, 253_402_300_800_000, -62_135_596_800_001,
            self._now * 1_000, self._now * 1_000_000, self._now // 1_000, self._now - 1, rnd.getrandbits(63), -rnd.getrandbits(40),
        )  # fmt: skip
        return rnd.choice(some)

    def _time(self, event: Event) -> str:
        name, value = self._rnd.choice(TIMES), self._a_time()
        if name == "offers":
            event["offers"] = [{**offer, "expires_at": value} for offer in event["offers"]]
        else:
            event[name] = value
            if name == "deliver_after":
                event["expires_at"] = self._rnd.choice([None, value if value > 0 else None])
        return f"{name} {value}"

    def _text(self, event: Event) -> str:
        name, value = self._rnd.choice(TEXTS), self._rnd.choice(_ODD)
        if name in ("event_id", "customer_id") and value:
            value = f"{value}{self._number}" if len(value) < 257 else value[: 300 - 9] + f"{self._number:09}"
        event[name] = value
        return f"{name} {value[:12]!r}"

    def _a_value(self) -> Any:
        rnd = self._rnd
        numbers = (float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, -0.0, (1 << 63) - 1, -(1 << 63), 1 << 53)
        return rnd.choice(
            [None, True, rnd.choice(numbers), rnd.random(), rnd.choice(_ODD), "x" * rnd.randrange(100_000)]
        )

    def _properties(self, event: Event) -> str:
        count = self._rnd.choice([1, 1, 2, 3, 400])
        small = (lambda: self._rnd.random()) if count > 3 else self._a_value
        event["properties"] = {self._rnd.choice(_KEYS) if count < 4 else f"p{n}": small() for n in range(count)}
        return f"{count} properties"

    def _offers(self, event: Event) -> str:
        count = self._rnd.choice([0, 1, 2, 100, 1_200])
        (offer,) = event["offers"]
        changes = {name: self._rnd.choice([None, "", "\0", "9" * 400]) for name in ("code", "value", "currency")}
        event["offers"] = [{**offer, **changes, "id": self._rnd.choice(["", "five", "🧀"])}] * count
        return f"{count} offers"

    def _experiment(self, event: Event) -> str:
        bucket = self._rnd.choice([None, float("nan"), float("inf"), -1.0])
        odd = {"key": self._rnd.choice(["", "\0", "s"]), "variant": None, "bucket": bucket, "scheme": ""}
        event["experiment"] = self._rnd.choice([None, odd])
        return f"experiment {bucket}"

    def _several(self, event: Event) -> str:
        changes = (self._time, self._text, self._properties, self._offers, self._experiment)
        return "; ".join(change(event) for change in self._rnd.sample(changes, 2))

    def _flip(self, body: bytes) -> bytes:
        made = bytearray(body)
        for _ in range(self._rnd.choice([1, 1, 2, 5])):
            made[self._rnd.randrange(len(made))] = self._rnd.randrange(256)
        return bytes(made)

    def _cut(self, body: bytes) -> bytes:
        # What is left is long enough to be told from any other.
        return body[: self._rnd.randrange(40, len(body))]

    def _longer(self, body: bytes) -> bytes:
        return body + self._rnd.choice([b"\0", b"\0" * 9, body, b"\xff" * 20, bytes(1_000_000)])

    def _noise(self, body: bytes) -> bytes:
        return self._rnd.randbytes(self._rnd.randrange(20, 300))

    def _varint(self, body: bytes) -> bytes:
        at = self._rnd.randrange(34, len(body))
        return body[:at] + self._rnd.choice([b"\xff" * 9 + b"\x01", b"\x01", b"\xfe" * 12, b"\x80" * 8]) + body[at:]

    def _dropped(self, attributes: dict[str, str]) -> None:
        for name in self._rnd.sample(["event_id", "retailer_id", "schema"], self._rnd.choice([1, 1, 2, 3])):
            del attributes[name]

    def _foreign(self, attributes: dict[str, str]) -> None:
        name = self._rnd.choice(["event_id", "retailer_id", "schema"])
        attributes[name] = self._rnd.choice(["", "x", "0" * 16, attributes["event_id"][::-1], "z" * 5_000])

    def _odd_attribute(self, attributes: dict[str, str]) -> None:
        attributes[self._rnd.choice(["replay", "", "\0", "🧀", "goog", "event-id"])] = self._rnd.choice(_ODD)

    def _huge(self, attributes: dict[str, str]) -> None:
        attributes[self._rnd.choice(["replay", "note", "schema"])] = "h" * self._rnd.choice([1_025, 70_000, 300_000])

    def _many(self, attributes: dict[str, str]) -> None:
        attributes.update((f"a{number}", "") for number in range(self._rnd.choice([101, 3_000])))
