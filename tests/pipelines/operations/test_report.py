"""The report as a reader, a browser and an attacker find it."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.report_factory import (
    any_campaign,
    any_experiment,
    any_summary,
    any_warning,
    delivered_summary,
    large_summary,
)
from support.report_page import ATTACK, Page, attacked

from pipelines.operations.report.page import SHOWN, render_report, write_report


def page(**changes: Any) -> Page:
    return Page(render_report(any_summary(**changes)))


def skewed(*stages: str) -> dict[str, Any]:
    tests = {stage: {"p_value": 2e-9 if stage in stages else 0.4, "mismatch": stage in stages} for stage in TESTED}
    return any_campaign(experiment=any_experiment(sample_ratio=tests))


TESTED = ("assigned", "emitted")
PAGES = {
    "usual": any_summary(),
    "large": large_summary(3, 40),
    "without campaigns": any_summary(campaigns=[], retailers=[], ledger=[], dead_letter_examples=[]),
    "plain campaign": any_summary(campaigns=[any_campaign(experiment=None, offers=[])]),
    "delivered": delivered_summary(),
    "running": any_summary(
        state="running", finished_at=None, test=True, timing=None, warnings=[any_warning("look")] * 9
    ),
}


@pytest.mark.parametrize("summary", PAGES.values(), ids=PAGES.keys())
def test_every_page_is_well_formed_and_can_be_navigated(summary: dict[str, Any]) -> None:
    found = Page(render_report(summary))
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    ids = Counter(attributes["id"] for _, attributes in found.elements if "id" in attributes)
    links = [attributes["href"] for attributes in found.all("a")]
    assert found.all("html") == [{"lang": "en"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert max(ids.values()) == 1
    assert [link for link in links if link[:1] != "#" or link[1:] not in ids] == []


@pytest.mark.parametrize("summary", PAGES.values(), ids=PAGES.keys())
def test_every_picture_and_table_speaks(summary: dict[str, Any]) -> None:
    found = Page(render_report(summary))
    outer = [
        a for (tag, a), inside in zip(found.elements, found.inside, strict=True) if tag == "svg" and "svg" not in inside
    ]
    assert [
        a for a in outer if a.get("aria-hidden") != "true" and not (a.get("role") == "img" and a.get("aria-label"))
    ] == []
    assert {attributes.get("scope") for attributes in found.all("th")} <= {"row", "col"}
    assert len(found.all("thead")) == len(found.all("table"))


@pytest.mark.parametrize("summary", PAGES.values(), ids=PAGES.keys())
def test_the_page_needs_nothing_from_anywhere(summary: dict[str, Any]) -> None:
    found = Page(render_report(summary))
    loading = ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background")
    values = [a[name] for _, a in found.elements for name in a.keys() & set(loading)]
    assert [value for value in values if not value.startswith("#")] == []
    assert re.findall(r"url\((?!#)|@import|https?:", found.css) == []
    assert {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in found.elements} == set()


def test_the_numbers_of_the_launch_stand_in_the_page() -> None:
    text = page().text
    for words in (
        "Customers evaluated 2,460 of 2,469 rows",
        "Events emitted 916 73.9% of matches",
        "Held out 100 8.1% of matches",
        "Suppressed 204 16.5% of matches",
        "Dead letters 11 9 rows, 2 events",
        "orders_90d >= 2 AND home_state IN ('CA', 'NY') entered 2,031 1,402 69.0%",
        "raised an error for 3 customers",
        "Held out Campaign’s holdout −62 5.0%",
        "Suppressed No consent for the channel −121 9.8%",
        "Dead-lettered Event too large for the transport −2 0.2%",
        "control 50.0% 50.2% 47.3% – 53.1% 562 451",
        "2 forced, 31 sticky. 40 without a variant",
        "five-off Unique code 5.00 USD 98.2% 393 400 41 13 0",
        "Read and check 0.50 s 4.1%",
        "Encode 1.9 µs",
        "customers.csv row 17",
        "1 April 2026, 13:00:12 UTC",
    ):
        assert words in text


def test_the_ledger_is_written_out_and_closes() -> None:
    found = page()
    assert "✓ 2,460 evaluated = 1,220 not matched + 1,240 matched" in found.text
    assert "✓ 1,240 matched = 100 held out + 18 outside + 204 suppressed + 2 dead-lettered + 916 emitted" in found.text
    assert "does not close" not in found.text.lower()
    assert not any("open" in a.get("class", "").split() for a in found.all("li"))


def test_a_lost_customer_is_told_at_the_top_and_where_it_happened() -> None:
    found = page(campaigns=[any_campaign(emitted=915)])
    line = "1,240 matched ≠ 100 held out + 18 outside + 204 suppressed + 2 dead-lettered + 915 emitted: 1 missing"
    assert found.text.count(line) == 2
    assert found.text.index(line) < found.text.index("Customers evaluated")
    assert f"Does not close. {line}" in found.text
    assert "✗ ledger open" in found.text


def test_a_customer_counted_twice_is_told_too() -> None:
    assert "1,220 not matched + 1,242 matched: 2 too many" in page(campaigns=[any_campaign(matched=1242)]).text


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ledger": []}, "916 emitted in all ≠ 0 emitted in the ledger’s rows: 916 missing"),
        ({"retailers": []}, "1,240 matched in all ≠ 0 matched over the retailers: 1,240 missing"),
        (
            {"customers": {"source": "c", "rows": 2470, "evaluated": 2460, "dead_lettered": {"missing_id": 9}}},
            "2,470 rows read ≠ 2,460 customers evaluated + 9 rows dead-lettered: 1 missing",
        ),
    ],
)
def test_the_launch_as_a_whole_must_close(changes: dict[str, Any], line: str) -> None:
    text = page(**changes).text
    assert "The ledger does not close" in text
    assert line in text


def test_a_retailer_that_does_not_close_is_named() -> None:
    retailers = [any_summary()["retailers"][0] | {"held_out": 99}]
    assert "store-292 : 1,240 matched ≠ 99 held out" in page(retailers=retailers).text


def test_rows_not_read_yet_are_no_mistake_while_the_launch_runs() -> None:
    customers = {"source": "c", "rows": 9000, "evaluated": 2460, "dead_lettered": {}}
    text = page(state="running", finished_at=None, customers=customers).text
    assert "does not close" not in text
    assert "This launch has not finished" in text


def test_a_split_that_is_as_planned_raises_no_alarm() -> None:
    assert "mismatch" not in page().text.lower()
    assert "Assigned , p = 0.91. As planned" in page().text


def test_a_mismatch_is_told_at_the_top_with_its_shares() -> None:
    text = page(campaigns=[skewed("assigned", "emitted")]).text
    told = "The split among the assigned is control 50.2% instead of 50.0%, code 49.8% instead of 50.0% (p < 0.0001)"
    assert text.index("Sample-ratio mismatch") < text.index(told) < text.index("Customers evaluated")
    assert text.count("Mismatch: the") == 2
    assert "✗ split mismatch" in text


def test_a_mismatch_after_assignment_points_to_what_came_after() -> None:
    text = page(campaigns=[skewed("emitted")]).text
    assert "Customers were assigned as planned, but suppression or offers took more from one variant" in text


def test_an_experiment_without_customers_is_drawn_and_not_tested() -> None:
    arm = {"key": "only", "weight": 1.0, "assigned": 0, "emitted": 0, "share": None, "low": None, "high": None}
    tests = {stage: {"p_value": None, "mismatch": False} for stage in TESTED}
    text = page(campaigns=[any_campaign(experiment=any_experiment(variants=[arm], sample_ratio=tests))]).text
    assert "Not tested: too few customers" in text


def test_a_test_launch_and_warnings_come_before_every_number() -> None:
    text = page(test=True, warnings=[any_warning("7 customers have an unknown time zone")]).text
    body = text[text.index("Skip to") :]
    assert body.index("Test launch.") < body.index("7 customers have") < body.index("Customers evaluated")
    assert "Test launch" not in page().text


def test_reasons_stand_in_the_documented_order_and_unknown_ones_are_not_lost() -> None:
    suppressed = {"moon_phase": 4, "frequency_cap": 60, "no_consent": 140}
    text = page(campaigns=[any_campaign(suppressed=suppressed)]).text
    assert text.index("No consent") < text.index("Frequency cap reached") < text.index("Moon phase −4")


def test_the_losses_lead_from_the_matched_to_the_emitted() -> None:
    found = page()
    rects = [a for a in found.all("rect") if "x" in a]
    last = [a for a in rects if a["class"] == "k-dead_lettered"][1]
    emitted = [a for a in rects if a["class"] == "k-emitted"][1]
    assert (emitted["x"], last["x"]) == ("0%", emitted["width"])


def test_retailers_are_ranked_and_only_the_first_stand_open() -> None:
    summary = large_summary(1, SHOWN + 12)
    summary["retailers"].reverse()
    text = Page(render_report(summary)).text
    ranked = re.findall(r"store-\d+", text[text.index("Retailers by") :])
    assert ranked[0] == "store-1"
    assert len(ranked) == SHOWN + 12
    assert text.index("The other 12 retailers") < text.index(f" {ranked[SHOWN]} ")
    assert text.index(f" {ranked[SHOWN - 1]} ") < text.index("The other 12 retailers")


def test_only_the_first_campaign_stands_open_and_each_is_linked() -> None:
    found = Page(render_report(large_summary(50, 5)))
    campaigns = [a for a in found.all("details") if a.get("class") == "campaign"]
    assert [place for place, a in enumerate(campaigns) if "open" in a] == [0]
    assert Counter(a["href"] for a in found.all("a"))["#campaign-50"] == 2


def test_dead_letters_say_where_they_are_and_what_to_do() -> None:
    text = page().text
    assert "duplicate_customer 5 rows The customer stands in an earlier row too" in text
    assert "over_size 2 events" in text
    assert "dead_letters/*.avro" in text
    none = {"source": "c", "rows": 2460, "evaluated": 2460, "dead_lettered": {}}
    clean = any_campaign(dead_lettered={}, emitted=918)
    assert "None: every row could be read" in page(customers=none, campaigns=[clean], dead_letter_examples=[]).text


@pytest.mark.parametrize(
    "summary", [any_summary(test=True, warnings=[any_warning("x")]), PAGES["large"]], ids=["usual", "large"]
)
def test_no_text_of_the_summary_becomes_html(summary: dict[str, Any]) -> None:
    harmless, found = Page(render_report(summary)), Page(render_report(attacked(summary)))
    assert found.text.count(ATTACK) > 20
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in harmless.elements}
    assert {name for _, a in found.elements for name in a} <= {name for _, a in harmless.elements for name in a}
    assert "default-src 'none'" in found.all("meta")[1]["content"]


def test_a_large_launch_stays_a_small_page() -> None:
    assert len(render_report(large_summary(50, 350)).encode()) < 3_000_000


def test_the_file_is_written_whole_whatever_is_in_the_summary(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")
    write_report(any_summary(launch_id="half \ud800 a pair – ünï"), target)
    assert "half ? a pair – ünï" in Page(target.read_text("utf-8")).text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
