"""The report's section on the delivery."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.report_factory import any_summary, delivered_summary, ends
from support.report_page import ATTACK, Page, attacked

from pipelines.operations.report.delivery import SHOWN, success_share
from pipelines.operations.report.page import render_report


def page(**changes: Any) -> Page:
    return Page(render_report(delivered_summary(**changes)))


def test_a_launch_without_receipts_has_no_such_section() -> None:
    found = Page(render_report(any_summary()))
    assert "delivery" not in {a.get("id") for _, a in found.elements}
    assert "Accepted" not in found.text


def test_the_numbers_of_the_delivery_stand_in_the_page() -> None:
    text = page().text
    for words in (
        "98.88% of what was tried is accepted; at least 99.9% should be. ✗ Below the target so far.",
        "Accepted 884 96.5% Rejected 7 0.8% Expired 2 0.2% Unknown 3 0.3% Pending 20 2.2%",
        "store-292 916 884 7 2 3 20 ✗ below the target: 98.88%",
        "control spring-produce 457 442 3 1 1 10 ✗ below the target: 99.10%",
        "without a variant spring-produce 459 442",
        "invalid_address Rejected 5 http_401 Rejected 2 expired Expired 2 timeout Unknown 3",
        "Accepted 884 2.1 s 1 min 35 s 0.40 s 3.2 s",
        "901 receipts of this launch read",
        "42 receipts of 2 other launches left out",
        "1 event accepted in two calls: sent again because no answer had come",
    ):
        assert words in text


def test_the_funnel_and_the_ledger_go_on_to_the_accepted() -> None:
    found = page()
    funnel = "Emitted 916 73.9% Pending No receipt yet −20 1.6% Unknown No answer came −3 0.2%"
    assert funnel in found.text
    assert "Rejected The vendor refused it −7 0.6% Accepted 884 71.3%" in found.text
    assert "✓ 916 emitted = 884 accepted + 7 rejected + 2 expired + 3 unknown + 20 pending" in found.text
    assert "Accepted , p = 0.50. As planned" in found.text
    rects = [a for a in found.all("rect") if "x" in a]
    last, accepted = ([a for a in rects if a["class"] == f"k-{kind}"][-1] for kind in ("rejected", "accepted"))
    assert (accepted["x"], last["x"]) == ("0%", accepted["width"])


def test_an_event_that_is_lost_opens_the_ledger() -> None:
    text = page(campaigns={"spring-produce": ends(accepted=900)}).text
    assert "916 emitted ≠ 900 accepted + 0 rejected + 0 expired + 0 unknown + 0 pending: 16 missing" in text


NOTICES = {
    "strays": ({"strays": 2}, "2 events with receipts that this launch did not emit"),
    "two calls": ({"twice": 1}, "1 event accepted in two calls: ask the vendor"),
    "an open group": ({"open": [["c", "s", None, "1 emitted is not nothing"]]}, "c, s, no variant: 1 emitted is not"),
    "below the target": (
        {"ends": ends(accepted=910, unknown=2, rejected=4)},
        "6 of 916 events that were tried are not accepted; 99.9% should be",
    ),
}


@pytest.mark.parametrize(("changes", "line"), NOTICES.values(), ids=NOTICES.keys())
def test_the_page_begins_with(changes: dict[str, Any], line: str) -> None:
    text = page(**changes).text
    assert line in text
    assert text.index(line) < text.index("Customers evaluated")


def test_nothing_is_told_at_the_top_while_events_are_pending_or_when_all_is_well() -> None:
    for changes in ({}, {"ends": ends()}):
        found = page(**changes)
        assert [a for a in found.all("section") if "notice" in a.get("class", "")] == []


def test_receipts_ahead_of_a_running_launch_are_no_contradiction() -> None:
    summary = delivered_summary(strays=2) | {"state": "running", "finished_at": None}
    assert "contradict" not in Page(render_report(summary)).text


@pytest.mark.parametrize(("retailers", "rest"), [(SHOWN, None), (SHOWN + 1, 1), (SHOWN + 330, 330)])
def test_the_largest_retailers_stand_alone_and_the_rest_is_summed(retailers: int, rest: int | None) -> None:
    rows = [{"id": f"store-{n}", **ends(accepted=9, rejected=1)} for n in range(retailers)]
    text = page(retailers=rows).text
    table = text[text.index("By retailer") : text.index("By variant")]
    assert len(re.findall(r"store-\d+", table)) == SHOWN
    if rest is None:
        assert "The other" not in table
    else:
        assert f"The other {rest} {10 * rest:,} {9 * rest:,} {rest:,} 0 0 0 ✗ below the target: 90.00%" in table


def test_a_delivery_that_has_not_begun_is_shown() -> None:
    nothing = ends(accepted=0, pending=916)
    found = page(ends=nothing, retailers=[{"id": "store-292", **nothing}], variants=[], waits=[], receipts=0,
                 reasons={"rejected": {}, "expired": {}, "unknown": {}})  # fmt: skip
    assert "– of what was tried is accepted" in found.text
    assert "Nothing is settled yet" in found.text
    assert "None: no event was rejected, expired or left without an answer" in found.text
    assert "Below the target" not in found.text


def test_no_text_of_a_delivery_becomes_html() -> None:
    summary = delivered_summary(open=[["c", "s", "v", "gap"]])
    hostile = attacked(summary)
    hostile["delivery"]["reasons"] = {"rejected": {ATTACK: 1}, "expired": {}, "unknown": {}}
    hostile["delivery"]["waits"] = summary["delivery"]["waits"]
    harmless, found = Page(render_report(summary)), Page(render_report(hostile))
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in harmless.elements}
    assert {name for _, a in found.elements for name in a} <= {name for _, a in harmless.elements for name in a}


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100.00%"), (0.999, "99.90%"), (0.99899, "99.89%"), (0.99999, "99.99%"), (0, "0.00%")]
)
def test_a_success_below_the_target_never_looks_like_it(share: float, text: str) -> None:
    assert success_share(share) == text
