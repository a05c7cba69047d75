"""What matches nothing is said: in validate, preview, the launch's end, its summary and its report."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.factories import any_campaign, any_customer_file, any_engine, any_folder
from support.launching import Place

from runners.cli.main import main

EXPERIMENT = {"key": "welcome-split", "variants": [{"key": "a"}, {"key": "b", "offers": ["five"]}]}
CLEAN: dict[str, Any] = {
    "experiment": EXPERIMENT,
    "offers": [{"id": "five", "kind": "fixed", "value": "5.00", "currency": "USD", "code": "FIVE"}],
    "content": {"template": "plain", "properties": {"name": "coalesce(first_name, 'friend')"}},
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The exit code of a command, what it printed and what it printed as an error."""

    def ran(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(argv))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return ran


def planted(root: Path, **flaw: Any) -> Place:
    """A clean launch of 60 customers, with what a test changes: `engine`, `lists`, `audiences`, `customers` (columns);
    everything else is of the campaign."""
    folder = {name: flaw.pop(name) for name in ("lists", "audiences") if name in flaw}
    engine, customers = any_engine(**flaw.pop("engine", {})), flaw.pop("customers", {})
    any_folder(root / "campaigns", any_campaign(**{**CLEAN, **flaw}), engine=engine, **folder)
    any_customer_file(root / "customers.parquet", 60, **customers)
    return Place(root)


def asked(place: Place, command: str, *more: str) -> list[str]:
    """The command line of a question about what would be launched."""
    return [
        command,
        f"--campaigns={place.root / 'campaigns'}",
        f"--customers={place.root / 'customers.parquet'}",
        *more,
    ]


FLAWS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("a list without a customer", "list_matches_nobody", "lists/staff.csv",
     {"audience": {"not": {"list": "lists/staff.csv"}}, "lists": {"staff.csv": "S-1\nS-2\n"}}),
    ("a suppression list without a customer", "list_matches_nobody", "lists/legal.csv",
     {"engine": {"suppression_lists": [{"file": "lists/legal.csv"}]}, "lists": {"legal.csv": "S-1\n"}}),
    ("an unknown retailer", "unknown_retailer", "stor-1", {"engine": {"retailers": {"stor-1": {"opted_out": True}}}}),
    ("a holdout of an unknown retailer", "unknown_retailer", "store-7",
     {"engine": {"holdouts": {"retailers": {"store-7": 0.1}}}}),
    ("a workspace of an unknown retailer", "unknown_retailer", "store-8",
     {"engine": {"workspaces": {"store-8": {}}}}),
    ("a campaign's unknown retailer", "unknown_retailer", "store-9", {"retailers": ["store-1", "store-9"]}),
    ("the marketplace on the storefront", "empty_scope", "marketplace", {"retailers": ["marketplace"]}),
    ("a scope of unknown retailers", "empty_scope", "store-9", {"retailers": ["store-9"]}),
    ("a marketplace without customers", "empty_scope", "*", {"surface": "marketplace"}),
    ("an audience without customers", "audience_matches_nobody", "rich",
     {"audience": {"audience": "rich"}, "audiences": {"rich": "spend > 1e6"}}),
    ("an audience that nobody uses", "audience_unused", "spare", {"audiences": {"spare": "spend > 1"}}),
    ("a condition that nobody meets", "node_matches_nobody", "orders > 99",
     {"audience": {"all": ["spend >= 0", {"not": "orders > 99"}]}}),
    ("a node behind one that all pass", "node_not_reached", "orders > 3",
     {"audience": {"any": ["spend >= 0", "orders > 3"]}}),
    ("a list without a customer of the campaign", "node_matches_nobody", "customer_id in lists/vip.csv",
     {"audience": {"all": ["spend > 20", {"list": "lists/vip.csv"}]}, "lists": {"vip.csv": "c-1\n"}}),
    ("a variant that nobody is in", "variant_reaches_nobody", "b",
     {"experiment": {"key": "k", "variants": [{"key": "a", "weight": 0.9999}, {"key": "b", "weight": 0.0001}]},
      "offers": []}),
    ("an offer whose condition nobody meets", "offer_reaches_nobody", "five",
     {"offers": [{"id": "five", "kind": "fixed", "when": "spend > 1e6"}]}),
    ("an offer that nothing names", "offer_reaches_nobody", "ten",
     {"offers": [*CLEAN["offers"], {"id": "ten", "kind": "fixed", "code": "TEN"}]}),
    ("a budget of nothing", "offer_reaches_nobody", "five", {"offers": [{"id": "five", "kind": "fixed", "budget": 0}]}),
    ("a property without a value", "property_null", "first_name",
     {"content": {"template": "plain", "properties": {"name": "first_name"}}}),
    ("a property that fails", "property_failed", "CAST(left(customer_id, 9 - orders) AS INTEGER)",
     {"content": {"properties": {"n": "CAST(left(customer_id, 9 - orders) AS INTEGER)"}}}),
    ("an offer's condition without a value", "when_null", "length(first_name) > 3",
     {"offers": [{"id": "five", "kind": "fixed", "when": "length(first_name) > 3"}]}),
    ("an offer's condition that fails", "when_failed", "timezone(phone, launched_at) > launched_at OR spend > 1",
     {"offers": [{"id": "five", "kind": "fixed", "when": "timezone(phone, launched_at) > launched_at OR spend > 1"}]}),
    ("a condition that fails", "condition_failed", "CAST(split_part(email, '@', 1) AS INTEGER) > 0",
     {"audience": {"any": ["spend > 30", "CAST(split_part(email, '@', 1) AS INTEGER) > 0"]}}),
    ("a condition that fails beyond TRY", "condition_failed", "first_name LIKE 'a' ESCAPE email",
     {"audience": {"any": ["spend > 30", "first_name LIKE 'a' ESCAPE email"]}}),
    ("a column with a built-in name", "built_in_name", "launched_at", {"customers": {"launched_at": lambda n: n}}),
    ("a column named like the clock", "built_in_name", "current_date", {"customers": {"current_date": lambda n: n}}),
    ("a schedule that has ended", "schedule_ended", "welcome",
     {"schedule": {"start": "2020-04-01T09:00", "local_time": True, "expires": "P3D", "quiet_hours": ["21:00", "08:00"]}}),
    ("a fixed end that has passed", "schedule_ended", "welcome", {"schedule": {"expires": "2020-04-01T00:00Z"}}),
    ("forced units that nobody has", "forced_nobody", "C-1, c-99",
     {"experiment": {**EXPERIMENT, "force": {"c-1": "a", "C-1": "b", "c-99": "a"}}}),
    ("a campaign that sends nothing", "campaign_sends_nothing", "welcome",
     {"customers": {"email_consent": lambda n: False}}),
    ("a launch that sends nothing", "no_events", "welcome", {"customers": {"email_consent": lambda n: False}}),
    ("rows of which none is a customer", "no_customers", "60 rows", {"customers": {"customer_id": lambda n: " "}}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "flaw"), [one[1:] for one in FLAWS], ids=[one[0] for one in FLAWS])
def test_a_flaw_is_said_at_every_place(tmp_path: Path, run: Run, kind: str, value: str, flaw: dict[str, Any]) -> None:
    place = planted(tmp_path, **flaw)
    launched, printed, _ = run("launch", *place.argv())
    assert launched == 0
    summary = json.loads((place.output / "summary.json").read_text())
    (found,) = [one for one in summary["warnings"] if (one["kind"], one["value"]) == (kind, value)]
    assert found.keys() == {"kind", "campaign", "file", "field", "value", "count", "example", "text"}
    said = f"{found['file']}  {found['field'] or '(whole file)'} = {value}\n    {found['text']}"
    assert f"warning: {said}" in printed
    assert html.escape(found["text"], quote=False).replace("'", "&#39;") in (place.output / "report.html").read_text()
    for command in (asked(place, "validate"), asked(place, "preview", "welcome", "--samples=0")):
        code, printed, _ = run(*command)
        assert (code, f"warning: {said}" in printed) == (0, True), command
        code, _, refused = run(*command, "--strict")
        assert (code, said in refused) == (2, True), command


CAP = {"caps": [{"channel": "email", "at_most": 1, "within": "P7D"}]}
STICKY = {"experiment": {**EXPERIMENT, "sticky": True}}
HEADS = {"history": "retailer_id,customer_id,channel,sent_at", "sticky": "experiment,unit,variant,bucket_version"}
EARLIER: list[tuple[str, str, str, str, str, dict[str, Any]]] = [
    ("a history without a cap", "history", "store-1,c-1,email,2026-03-30", "history_unused", "earlier.csv", {}),
    ("a history of a channel without a cap", "history", "store-1,c-1,sms,2026-03-30", "history_unused", "earlier.csv",
     {"engine": CAP}),
    ("a history of an unknown channel", "history",
     "store-1,c-1,mail,2026-03-30\nstore-1,c-1,email,2026-03-30", "history_channel_unknown", "mail", {"engine": CAP}),
    ("a history of nobody", "history", "store-1,C1,email,2026-03-30", "history_matches_nobody", "email",
     {"engine": CAP}),
    ("a history of other retailers' customers", "history", "store-2,c-1,email,2026-03-30", "history_matches_nobody",
     "email", {"engine": CAP}),
    ("assignments of another experiment", "sticky", "old,c-1,a,1", "sticky_unused", "earlier.csv", STICKY),
    ("assignments of an experiment that is not sticky", "sticky", "welcome-split,c-1,a,1", "sticky_unused",
     "earlier.csv", {}),
    ("assignments of an unknown variant", "sticky", "welcome-split,c-1,A,1\nwelcome-split,c-2,a,1",
     "sticky_unknown_variant", "A", STICKY),
    ("assignments of nobody", "sticky", "welcome-split,C1,a,1", "sticky_matches_nobody", "welcome-split", STICKY),
]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "rows", "kind", "value", "flaw"), [one[1:] for one in EARLIER], ids=[one[0] for one in EARLIER]
)
def test_what_is_given_of_earlier_launches_and_has_no_effect_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, option: str, rows: str, kind: str, value: str, flaw: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    place = planted(tmp_path, **flaw)
    Path("earlier.csv").write_text(f"{HEADS[option]}\n{rows}\n")
    given = f"--{option}=earlier.csv"
    code, _, refused = run("launch", *place.argv(given, "--strict"))
    assert (code, (tmp_path / "events").exists()) == (2, False)
    launched, printed, _ = run("launch", *place.argv(given))
    assert launched == 0
    (found,) = json.loads((place.output / "summary.json").read_text())["warnings"]
    assert (found["kind"], found["value"], found["file"]) == (kind, value, f"--{option}")
    said = f"{found['file']}  {found['field'] or '(whole file)'} = {value}\n    {found['text']}"
    assert said in refused
    assert f"warning: {said}" in printed
    Path("earlier.csv").unlink()
    assert run("report", str(place.output))[0] == 0
    assert html.escape(found["text"], quote=False).replace("'", "&#39;") in (place.output / "report.html").read_text()
    Path("earlier.csv").write_text(f"{HEADS[option]}\n{rows}\n")
    code, printed, _ = run(*asked(place, "preview", "welcome", "--samples=0", given))
    assert (code, f"warning: {said}" in printed) == (0, True)
    code, _, refused = run(*asked(place, "preview", "welcome", "--samples=0", given, "--strict"))
    assert (code, said in refused) == (2, True)


def test_how_many_customers_earlier_launches_tell_of_is_said(tmp_path: Path, run: Run) -> None:
    place = planted(tmp_path, engine=CAP, audience="orders >= 0", **STICKY)
    sends = "".join(f"store-{n % 3},c-{n},email,2026-03-30\n" for n in range(50, 70))
    (tmp_path / "h.csv").write_text(f"{HEADS['history']}\n{sends}store-2,c-59,email,2026-03-29\n")
    (tmp_path / "s.csv").write_text(f"{HEADS['sticky']}\nold,c-1,z,1\nwelcome-split,c-1,a,1\nwelcome-split,C1,a,1\n")
    given = (f"--history={tmp_path / 'h.csv'}", f"--sticky={tmp_path / 's.csv'}", "--strict")
    for command in (["launch", *place.argv(*given, "--batch_rows=20")], asked(place, "preview", "welcome", *given)):
        code, printed, _ = run(*command)
        assert code == 0
        assert "history of email: 10 of 20 customers in it are customers here" in printed
        assert "sticky welcome-split: 1 customer here has one of its 2 assignments" in printed
        assert "warning" not in printed


@pytest.mark.parametrize(
    ("option", "rows", "told"),
    [
        ("history", "store-1,c-1,email,2026-03-30\nstore-1,c-1,Email,2026-03-30\n",
         "earlier.csv:3  channel = Email\n    is no channel of engine.yaml, and its caps would not count these sends; "
         "write email"),
        ("history", "", "earlier.csv  (whole file) = 0 rows\n    holds no sends"),
        ("sticky", "", "earlier.csv  (whole file) = 0 rows\n    holds no assignments"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["launch", "preview"])
def test_what_is_surely_a_mistake_in_what_earlier_launches_left_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, command: str, option: str, rows: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    place = planted(tmp_path, engine=CAP, **STICKY)
    Path("earlier.csv").write_text(f"{HEADS[option]}\n{rows}")
    argv = ["launch", *place.argv()] if command == "launch" else asked(place, command, "welcome")
    code, _, refused = run(*argv, f"--{option}=earlier.csv")
    assert code == 2
    assert told in refused
    assert not (tmp_path / "events").exists()


def test_a_clean_launch_has_no_warning(tmp_path: Path, run: Run) -> None:
    place = planted(tmp_path, audience={"not": {"list": "lists/staff.csv"}}, lists={"staff.csv": "c-1\nS-1\n"})
    for command in (
        asked(place, "validate", "--strict"),
        asked(place, "preview", "welcome", "--strict"),
        ["launch", *place.argv("--strict")],
    ):
        code, printed, _ = run(*command)
        assert code == 0
        assert "list lists/staff.csv: 1 of 2 ids found among the customers (by customer_id)" in printed
        assert "warning" not in printed
    summary = json.loads((place.output / "summary.json").read_text())
    assert summary["warnings"] == []
    assert summary["lists"] == [
        {"file": "lists/staff.csv", "column": "customer_id", "ids": 2, "known": 1, "customers": 1}
    ]


@pytest.mark.parametrize("demanded", ["--strict", "engine.yaml"])
def test_a_strict_launch_is_refused_before_an_event_leaves_and_its_folder_is_free(
    tmp_path: Path, run: Run, demanded: str
) -> None:
    strict = {"engine": {"strict": True}} if demanded == "engine.yaml" else {}
    more = [] if strict else ["--strict"]
    place = planted(tmp_path, audience={"not": {"list": "lists/staff.csv"}}, lists={"staff.csv": "S-1\n"}, **strict)
    code, _, refused = run("launch", *place.argv(*more))
    assert code == 2
    assert "welcome.yaml  audience.not = customer_id in lists/staff.csv" not in refused
    assert "welcome.yaml  audience.not = lists/staff.csv" in refused
    assert not (tmp_path / "events").exists()
    assert run("launch", *place.argv(*more))[0] == 2
    (tmp_path / "campaigns" / "lists" / "staff.csv").write_text("c-1\n")
    assert run("launch", *place.argv(*more))[0] == 0
    assert len(place.events()) == 59


def test_a_strict_launch_that_was_begun_without_keeps_its_folder(tmp_path: Path, run: Run) -> None:
    place = planted(tmp_path, retailers=["store-1", "store-9"])
    assert run("launch", *place.argv())[0] == 0
    kept = (place.output / "manifest.json").read_bytes()
    code, _, refused = run("launch", *place.argv("--strict"))
    assert (code, "store-9" in refused) == (2, True)
    assert (place.output / "manifest.json").read_bytes() == kept
    assert len(place.events()) == 20


def test_the_numbers_are_those_of_all_batches(tmp_path: Path, run: Run) -> None:
    place = planted(
        tmp_path,
        audience={"any": ["spend >= 30", "CAST(first_name AS INTEGER) > 0", {"list": "lists/vip.csv"}]},
        lists={"vip.csv": "c-1\nc-2\nc-2\nc-59\nS-1\n"},
        content={"properties": {"name": "first_name"}},
    )
    code, printed, _ = run("launch", *place.argv("--batch_rows=20"))
    assert code == 0
    assert "list lists/vip.csv: 3 of 5 ids found among the customers" in printed
    summary = json.loads((place.output / "summary.json").read_text())
    counts = {one["kind"]: (one["count"], one["example"]) for one in summary["warnings"]}
    nameless = [n for n in range(60) if n % 7 == 3]
    failed = [n for n in range(30) if n not in nameless]
    assert counts == {
        "condition_failed": (len(failed), "c-0"),
        "node_matches_nobody": (30, ""),
        "property_null": (sum(n >= 30 for n in nameless), "c-31"),
    }


@pytest.mark.parametrize("inside", ["CAST(first_name AS INTEGER) > 0", "first_name LIKE 'a' ESCAPE email"])
def test_an_error_never_leads_to_a_message(tmp_path: Path, inside: str) -> None:
    place = planted(tmp_path, audience={"all": ["spend < 30", {"not": {"any": ["spend < 5", inside]}}]})
    assert place.launch() == 0
    assert {event["customer_id"] for event in place.events().values()} == {f"c-{n}" for n in range(5, 30) if n % 7 == 3}


@pytest.mark.parametrize(
    ("audiences", "message"),
    [
        ({}, "no file audiences/gone.yaml"),
        ({"gone": {"audience": "other"}, "other": {"not": {"audience": "gone"}}}, "contains itself"),
        ({"gone": {"not": "no such column"}}, "is not an SQL expression"),
        ({"gone": {"list": "lists/none.csv"}}, "there is no such file"),
    ],
    ids=["missing", "a cycle", "not SQL", "without its list"],
)
@pytest.mark.parametrize("command", ["validate", "launch", "preview"])
def test_a_broken_named_audience_is_refused_with_all_other_mistakes(
    tmp_path: Path, run: Run, command: str, audiences: dict[str, Any], message: str
) -> None:
    place = planted(tmp_path, audience={"all": [{"audience": "gone"}, "spend >= nothing"]}, audiences=audiences)
    argv = ["launch", *place.argv()] if command == "launch" else asked(place, command)
    code, _, refused = run(*argv, *(["welcome"] if command == "preview" else []))
    assert code == 2
    assert message in refused
    assert command == "preview" or "the customers have no column nothing" in refused
    assert not (tmp_path / "events").exists()


def test_a_campaign_that_has_not_ended_everywhere_is_no_warning(tmp_path: Path, run: Run) -> None:
    now = datetime.now(UTC)
    for number, schedule in enumerate(
        [
            {"start": f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M}", "local_time": True, "expires": "PT2H"},
            {"start": "2020-04-01T09:00Z", "expires": f"{now + timedelta(days=1):%Y-%m-%dT%H:%M}Z"},
            {"start": f"{now - timedelta(days=3):%Y-%m-%dT%H:%M}Z", "expires": "P4D"},
            {"start": "2020-04-01T09:00Z"},
        ]
    ):
        place = planted(tmp_path / str(number), schedule=schedule)
        assert run(*asked(place, "validate", "--strict"))[0] == 0


def test_a_campaign_without_retailers_is_refused(tmp_path: Path, run: Run) -> None:
    place = planted(tmp_path, retailers=[])
    code, _, refused = run(*asked(place, "validate"))
    assert (code, "welcome.yaml:" in refused, "retailers" in refused) == (2, True, True)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("first_name LIKE 'a' ESCAPE 'ab'", "ESCAPE takes one character, this is 'ab'"),
        ("spend > CAST('abc' AS INTEGER)", "fails for every customer: Could not convert string 'abc' to INT32"),
        ("launched_at > CAST('2026-02-31' AS TIMESTAMP)", "fails for every customer"),
    ],
)
def test_a_condition_that_fails_whoever_the_customer_is_is_refused(
    tmp_path: Path, run: Run, condition: str, message: str
) -> None:
    place = planted(tmp_path, audience=condition)
    code, _, refused = run(*asked(place, "validate"))
    assert (code, message in refused) == (2, True)


def test_conditions_read_the_time_of_the_launch_whatever_column_has_its_name(tmp_path: Path) -> None:
    place = planted(
        tmp_path,
        audience="launched_at > TIMESTAMP '2020-01-01'",
        engine={"shared_address": {"column": "launched_at"}},
        customers={"launched_at": lambda n: datetime(1990, 1, 1)},
    )
    assert place.launch() == 0
    assert len(place.events()) == 60


def test_of_a_launch_that_still_runs_only_what_is_sure_is_said(tmp_path: Path, run: Run) -> None:
    place = planted(tmp_path, retailers=["store-1", "store-9"], content={"properties": {"name": "first_name"}})
    assert run("launch", *place.argv("--batch_rows=20"))[0] == 0
    (place.output / "summary.json").unlink()
    sorted((place.output / "exposures").glob("*.parquet"))[-1].unlink()
    assert run("report", str(place.output))[0] == 0
    page = (place.output / "report.html").read_text()
    assert "matched customers have no value here" in page
    assert "No customer of store-9" not in page


def test_validate_says_without_customers_what_needs_none(tmp_path: Path, run: Run) -> None:
    place = planted(tmp_path, audiences={"spare": "spend > 1"})
    ended = {"id": "ended", "schedule": {"start": "2020-04-01T09:00Z", "expires": "P1D"}}
    any_folder(place.root / "campaigns", any_campaign(**CLEAN), any_campaign(**{**CLEAN, **ended}), engine=any_engine())
    campaigns = f"--campaigns={place.root / 'campaigns'}"
    code, printed, _ = run("validate", campaigns)
    assert (code, "warning: audiences/spare.yaml  audience = spare" in printed) == (0, True)
    assert "warning: --campaigns  schedule = ended\n" in printed
    code, _, refused = run("validate", campaigns, "--strict")
    assert (code, "audiences/spare.yaml  audience = spare" in refused) == (2, True)
