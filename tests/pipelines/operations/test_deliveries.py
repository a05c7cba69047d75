"""A launch and its receipts, asked by the three commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.launching import Place, any_place
from support.receipts_factory import ARRIVED, any_receipt, receipt_of, rejected, written

from runners.cli.main import main
from schemas.delivery import Receipt

Told = Callable[..., tuple[int, str]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """`told(command, …)`: the exit code and what was printed, to either stream."""

    def run(*argv: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(list(argv))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished launch of rich campaigns; the tests put receipts into folders of their own."""
    place = any_place(tmp_path_factory.mktemp("launched"))
    assert place.launch("--batch_rows=100") == 0
    return place


def acceptances(place: Place) -> list[Receipt]:
    """An acceptance of each event, in the order of the ids."""
    events = sorted(place.events().values(), key=lambda event: str(event["event_id"]))
    return [receipt_of(event) for event in events]


def mixed(place: Place) -> list[Receipt]:
    """Every outcome in turn, and every seventh event pending."""
    found = []
    for turn, one in zip(cycle(range(7)), acceptances(place), strict=False):
        unknown = one._replace(outcome="unknown", reason="timeout", vendor_id=None)
        expired = one._replace(outcome="expired", reason="expired", batch_id=None, vendor_id=None, attempt=0)
        late = one._replace(settled_at=ARRIVED + 60_000, attempt=2, resent=True, vendor_id="d-2")
        found += [[one], [one, one], [rejected(one)], [expired], [unknown], [unknown, late], []][turn]
    return found


def test_without_receipts_nothing_is_said_of_the_delivery(launched: Place, told: Told) -> None:
    code, text = told("check", str(launched.output))
    assert code == 0
    assert "accepted" not in text
    event = next(iter(launched.events().values()))
    assert (
        "delivery" not in told("why", event["customer_id"], event["campaign_id"], "--launch", str(launched.output))[1]
    )
    told("report", str(launched.output))
    assert 'id="delivery"' not in launched.output.joinpath("report.html").read_text()


def test_a_delivery_in_which_all_was_accepted_is_right(launched: Place, told: Told, tmp_path: Path) -> None:
    every = acceptances(launched)
    code, text = told("check", str(launched.output), "--receipts", str(written(tmp_path, every)))
    assert code == 0
    assert f"ok     all {len(every)} receipts are of events of this launch" in text
    assert f"note   deliveries: {len(every)} accepted, 0 rejected, 0 expired, 0 unknown, 0 pending" in text
    assert "ok     100.000% of what was tried is accepted, the target is 99.9%" in text
    for campaign, number in Counter(one.campaign_id for one in every).items():
        assert f"ok     {campaign}: {number} emitted = {number} accepted + 0 rejected" in text
    assert "ok     codes: the split of the accepted is as weighted" in text


def test_every_outcome_closes_the_ledger(launched: Place, told: Told, tmp_path: Path) -> None:
    receipts = mixed(launched)
    code, text = told("check", str(launched.output), "--receipts", str(written(tmp_path, receipts)))
    events = len(launched.events())
    turns = Counter(place % 7 for place in range(events))
    accepted = turns[0] + turns[1] + turns[5]
    assert code == 0
    assert (
        f"deliveries: {accepted} accepted, {turns[2]} rejected (invalid_address {turns[2]}), {turns[3]} expired, "
        f"{turns[4]} unknown, {turns[6]} pending" in text
    )
    assert f"below it so far, {turns[6]} are pending" in text
    assert "WRONG" not in text


def test_the_folder_of_the_launch_itself_is_looked_at_and_several_can_be_given(tmp_path: Path, told: Told) -> None:
    place = any_place(tmp_path, customers=60)
    assert place.launch() == 0
    every = acceptances(place)
    own, more = written(place.output / "delivery" / "receipts", every[::2]), written(tmp_path / "more", every[1::2])
    assert (
        f"{len(every[::2])} accepted, 0 rejected, 0 expired, 0 unknown, {len(every[1::2])} pending"
        in (told("check", str(place.output))[1])
    )
    both = told("check", str(place.output), "--receipts", str(own), "--receipts", str(more))[1]
    assert f"{len(every)} accepted, 0 rejected, 0 expired, 0 unknown, 0 pending" in both


def test_success_below_the_target_is_wrong_once_nothing_is_pending(launched: Place, told: Told, tmp_path: Path) -> None:
    every = acceptances(launched)
    half = [rejected(one) if place % 2 else one for place, one in enumerate(every)]
    code, text = told("check", str(launched.output), "--receipts", str(written(tmp_path, half)))
    assert code == 1
    assert "WRONG  5" in text
    assert "of what was tried is accepted, the target is 99.9%: see the reasons" in text
    code, text = told("check", str(launched.output), "--receipts", str(written(tmp_path, half[1:])))
    assert code == 0
    assert "below it so far, 1 are pending" in text


def test_receipts_of_other_launches_are_counted_in_words(launched: Place, told: Told, tmp_path: Path) -> None:
    others = [any_receipt(event_id=f"o-{n}", launch_id="other") for n in range(3)]
    code, text = told("check", str(launched.output), "--receipts", str(written(tmp_path, others)))
    assert code == 0
    assert "receipts of other launches are left out: 3 (other 3)" in text
    assert "0 accepted, 0 rejected, 0 expired, 0 unknown" in text
    assert "delivery success: nothing was tried yet" in text


def a_stray(every: list[Receipt]) -> list[Receipt]:
    return [any_receipt(event_id="nobody-knows")]


def two_calls(every: list[Receipt]) -> list[Receipt]:
    return [every[0]._replace(batch_id="b-2")]


def two_answers(every: list[Receipt]) -> list[Receipt]:
    return [every[0]._replace(vendor_id="d-2")]


def another_retailer(every: list[Receipt]) -> list[Receipt]:
    return [every.pop()._replace(retailer_id="store-9")]


def one_variant_only(every: list[Receipt]) -> list[Receipt]:
    every[:] = [one for one in every if one.campaign_id != "text" or one.variant == "a"]
    return []


WRONG: dict[str, tuple[Any, str]] = {
    "a receipt of no event": (
        a_stray,
        "receipts are of events of this launch: of 1 they are not, such as nobody-knows",
    ),
    "two calls": (two_calls, "no event was accepted in two calls: 1 by their receipts, such as "),
    "two answers of the vendor": (two_answers, "no event was accepted in two calls: 1 by their receipts, such as "),
    "a receipt with another retailer": (another_retailer, "store-9, "),
    "a delivery of one variant only": (one_variant_only, "text: the split of the accepted is as weighted (p = "),
}


@pytest.mark.parametrize(("spoil", "line"), WRONG.values(), ids=WRONG.keys())
def test_check_finds(launched: Place, told: Told, tmp_path: Path, spoil: Any, line: str) -> None:
    every = acceptances(launched)
    more = spoil(every)
    code, text = told("check", str(launched.output), "--receipts", str(written(tmp_path, [*every, *more])))
    assert code == 1
    assert line in "\n".join(one for one in text.splitlines() if one.startswith("WRONG"))
    told("report", str(launched.output), "--receipts", str(tmp_path))
    page = launched.output.joinpath("report.html").read_text()
    assert "The receipts contradict the launch" in page or "Sample-ratio mismatch" in page


def test_a_second_acceptance_that_was_resent_is_told_and_not_wrong(launched: Place, told: Told, tmp_path: Path) -> None:
    every = acceptances(launched)
    again = every[0]._replace(vendor_id="d-2", batch_id="b-2", resent=True, attempt=2)
    code, text = told("check", str(launched.output), "--receipts", str(written(tmp_path, [*every, again])))
    assert code == 0
    assert "events accepted in two calls, one sent again because no answer had come: 1" in text


def test_receipts_that_are_ahead_of_a_running_launch_are_not_wrong(tmp_path: Path, told: Told) -> None:
    place = any_place(tmp_path)
    assert place.launch("--batch_rows=100") == 0
    every = acceptances(place)
    last = sorted((place.output / "exposures").glob("*.parquet"))[-1]
    ahead = sum(row["outcome"] == "emitted" for row in pq.read_table(last).to_pylist())
    last.unlink()
    (place.output / "summary.json").unlink()
    code, text = told("check", str(place.output), "--receipts", str(written(tmp_path / "r", every)))
    assert code == 0, text
    assert f"events with a receipt and no exposure yet, as their batch is not done: {ahead}" in text
    assert f"{len(every) - ahead} accepted" in text


def why(place: Place, told: Told, receipt: Receipt, folder: Path) -> str:
    argv = (receipt.customer_id, receipt.campaign_id, "--launch", str(place.output), "--receipts", str(folder))
    code, text = told("why", *argv)
    assert code == 0
    return text[text.index("  delivery") :]


def test_why_tells_each_receipt_in_the_order_of_time(launched: Place, told: Told, tmp_path: Path) -> None:
    one = acceptances(launched)[3]
    unknown = one._replace(outcome="unknown", reason="timeout", vendor_id=None)
    late = one._replace(settled_at=ARRIVED + 3_600_000, attempt=2, resent=True, vendor_id="d-2")
    text = why(launched, told, one, written(tmp_path, [late, unknown, unknown]))
    assert [line.split() for line in text.splitlines()[1:11]] == [
        *[line.split() for line in (
            "2026-04-01 10:00:02 EDT  unknown (timeout)",
            "arrived 2026-04-01 10:00:00 EDT, 2.0 s before",
            f"workspace {one.workspace}",
            "batch b-1",
            "attempt 1",
            "written 2 times, it counts once",
            "2026-04-01 11:00:00 EDT  accepted",
            "arrived 2026-04-01 10:00:00 EDT, 3,600.0 s before",
            f"workspace {one.workspace}",
            "batch b-1",
        )],
    ]  # fmt: skip
    assert "vendor id   d-2" in text
    assert "attempt     2, sent again because no answer had come" in text


def test_why_tells_of_an_event_that_was_never_in_a_call(launched: Place, told: Told, tmp_path: Path) -> None:
    one = acceptances(launched)[3]
    expired = one._replace(outcome="expired", reason="expired", batch_id=None, vendor_id=None, attempt=0)
    text = why(launched, told, one, written(tmp_path, [expired]))
    assert "expired (expired)" in text
    assert "none: no call was made" in text
    assert "vendor id" not in text


def test_why_tells_that_an_event_is_pending(launched: Place, told: Told, tmp_path: Path) -> None:
    every = acceptances(launched)
    assert "pending: no receipt yet" in why(launched, told, every[0], written(tmp_path, every[1:]))


def test_why_says_nothing_of_a_delivery_where_nothing_was_emitted(launched: Place, told: Told, tmp_path: Path) -> None:
    held = next(row for row in launched.exposures() if row["outcome"] == "held_out")
    argv = (held["customer_id"], held["campaign_id"], "--launch", str(launched.output), "--receipts", str(tmp_path))
    code, text = told("why", *argv)
    assert code == 0
    assert "delivery" not in text


def test_the_report_shows_the_delivery(launched: Place, told: Told, tmp_path: Path) -> None:
    code, _ = told("report", str(launched.output), "--receipts", str(written(tmp_path, mixed(launched))))
    page = launched.output.joinpath("report.html").read_text()
    assert code == 0
    assert 'id="delivery"' in page
    assert "invalid_address" in page
    assert "accepted in two calls" not in page
    assert "does not close" not in page.lower()


COMMANDS = [("check", "{launch}"), ("report", "{launch}"), ("why", "{customer}", "{campaign}", "--launch", "{launch}")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("bad", ["cut", "foreign", "missing"])
def test_bad_receipts_are_told_and_nothing_else_is_said(
    launched: Place, told: Told, tmp_path: Path, command: tuple[str, ...], bad: str
) -> None:
    every = acceptances(launched)
    folder = written(tmp_path / "receipts", every)
    file = folder / "part-0.avro"
    if bad == "missing":
        folder = folder / "nowhere"
    else:
        data = file.read_bytes()[:-40] if bad == "cut" else sorted(launched.root.glob("events/*.avro"))[0].read_bytes()
        file.write_bytes(data)
    names = {"launch": str(launched.output), "customer": every[0].customer_id, "campaign": every[0].campaign_id}
    code, text = told(*(word.format(**names) for word in command), "--receipts", str(folder))
    assert code == 2
    assert (str(folder) if bad == "missing" else str(file)) in text
    assert text.startswith("1 mistake in the input")
