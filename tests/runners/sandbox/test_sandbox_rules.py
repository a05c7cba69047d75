"""The sandbox without the network: the hour's limit, the script, the checks of the API."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runners.sandbox.book import Book, Entry
from runners.sandbox.endpoints import trigger_send, users_track, webhook
from runners.sandbox.script import Asked, ScriptError, load_script, read_script
from runners.sandbox.stand_in import HourBucket, Request, StandIn

HEADERS = {"authorization": "Bearer k", "content-type": "application/json"}


def one(name: str = "a", **changes: Any) -> dict[str, Any]:
    return {"external_user_id": name, "trigger_properties": {"event_id": f"event-{name}"}, **changes}


def body(*recipients: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"campaign_id": "c", "recipients": list(recipients or (one(),)), **changes}


def request(data: Any = None, path: str = "/campaigns/trigger/send", **headers: str) -> Request:
    data = body() if data is None else data
    return Request(path, HEADERS | headers, data if isinstance(data, bytes) else json.dumps(data).encode())


def test_the_limit_starts_again_on_the_clock_hour() -> None:
    now = [7 * 3600 + 3598.0]
    bucket = HourBucket(2, lambda: now[0])
    assert [bucket.take("a")[0] for _ in range(3)] == [True, True, False]
    assert bucket.take("b")[0]
    now[0] += 1.9
    assert bucket.take("a") == (
        False, {"x-ratelimit-limit": "2", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(8 * 3600)}
    )  # fmt: skip
    now[0] += 0.1
    assert bucket.take("a")[1]["x-ratelimit-remaining"] == "1"


def test_a_call_over_the_limit_is_a_429_that_sends_nothing() -> None:
    book = Book()
    stand_in = StandIn(book, calls_per_hour=1, clock=lambda: 3600.0)
    replies = [stand_in.answer(request()) for _ in range(2)]
    assert [reply.status for reply in replies] == [201, 429]
    assert replies[1].headers["x-ratelimit-reset"] == "7200"
    assert book.summary()["accepted"] == 1


def answers(rules: list[dict[str, Any]], calls: int, **changes: Any) -> str:
    """Which of many calls a rule answers, as a text of x and points."""
    script = read_script(rules)
    asked = Asked(**{"workspace": "w", "path": "/p", "campaign": "c", "recipients": ["a", "b"], **changes})
    return "".join("x" if script.choose(asked) else "." for _ in range(calls))


def test_rules_take_every_nth_the_first_ones_or_all() -> None:
    assert answers([{"answer": 500}], 4) == "xxxx"
    assert answers([{"answer": 500, "every": 3}], 7) == "..x..x."
    assert answers([{"answer": 500, "first": 2}], 4) == "xx.."
    assert answers([{"answer": 500, "first": 1}, {"answer": 400, "first": 2}], 5) == "xxx.."


def test_a_share_is_reproducible_by_its_seed() -> None:
    rule = {"answer": 500, "share": 0.2, "seed": 7}
    assert answers([rule], 1000) == answers([rule], 1000)
    assert answers([rule], 1000) != answers([{**rule, "seed": 8}], 1000)
    assert Counter(answers([rule], 1000))["x"] == pytest.approx(200, abs=50)


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({}, "x"),
        ({"workspace": "w"}, "x"),
        ({"workspace": "w*", "path": "/p", "campaign": "?", "recipient": "b"}, "x"),
        ({"workspace": "v"}, "."),
        ({"campaign": "cc"}, "."),
        ({"recipient": "c"}, "."),
        ({"path": "/"}, "."),
    ],
)
def test_a_rule_matches_when_all_it_names_fits(match: dict[str, str], hit: str) -> None:
    assert answers([{"answer": 500, "match": match}], 1) == hit


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ([{}], "rule 0.answer: Field required"),
        ([{"answer": 500}, {"answer": "bogus"}], "rule 1.answer"),
        ([{"answer": 99}], "no status from 200 to 599"),
        ([{"answer": 500, "every": 2, "first": 1}], "give one of every, first and share"),
        ([{"answer": 429, "form": "half"}], "429 has no form 'half'"),
        ([{"answer": 500, "sometimes": 1}], "rule 0.sometimes"),
        ({"answer": 500}, "rule list"),
        ("[{", "neither JSON nor YAML"),
    ],
)
def test_a_wrong_script_is_told_with_its_rule(script: Any, problem: str) -> None:
    with pytest.raises(ScriptError, match=problem):
        read_script(script)


def test_a_script_is_read_from_yaml_or_json(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("- answer: 500\n  first: 2\n- {answer: lose, match: {workspace: w}}\n")
    assert [rule.answer for rule in load_script(str(tmp_path / "rules.yaml")).rules] == [500, "lose"]
    assert load_script(None).rules == ()
    with pytest.raises(ScriptError, match=r"missing\.yaml"):
        load_script(str(tmp_path / "missing.yaml"))


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        body(campaign_id=""),
        {"recipients": [one()]},
        {"campaign_id": "c"},
        body(recipients=[]),
        body(recipients="a"),
        body(*[one(str(n)) for n in range(51)]),
        body(one(email="a@example.com")),
        body({"trigger_properties": {}}),
        body(one(""), one("b")),
        body(one("a", external_user_id=7)),
        body(one(send_to_existing_only=False)),
        body({"user_alias": {}, "send_to_existing_only": False, "attributes": {}}),
        body(one(trigger_properties=[])),
        body(broadcast=True),
    ],
    ids=lambda wrong: json.dumps(wrong)[:40],
)
def test_a_call_that_the_api_forbids_is_a_400(wrong: Any) -> None:
    assert trigger_send(wrong).status == 400


def test_repeated_recipients_collapse_into_one_message() -> None:
    verdict = trigger_send(body(one("a"), one("b"), one("a", trigger_properties={"event_id": "late"})))
    assert (verdict.accepted, verdict.collapsed) == (["event-a", "event-b"], 1)


def test_recipients_may_have_any_one_identifier_and_the_calls_properties() -> None:
    recipients: list[dict[str, Any]] = [
        {"braze_id": "x"},
        {"email": "a@example.com"},
        {"user_alias": {"alias_name": "n"}},
    ]
    verdict = trigger_send(body(*recipients, trigger_properties={"event_id": "common"}))
    assert list(verdict.accepted) == ["common"] * 3
    assert trigger_send({"campaign_id": "c", "broadcast": True}).reply["message"] == "success"


def test_track_says_which_objects_are_wrong_and_takes_the_rest() -> None:
    event = {"external_id": "a", "name": "n", "time": "t"}
    verdict = users_track({"events": [event, {"external_id": "b"}, "odd"], "attributes": [{"external_id": "a"}, {}]})
    assert verdict.status == 201
    assert (verdict.reply["events_processed"], verdict.reply["attributes_processed"]) == (1, 1)
    errors = [(error["input_array"], error["index"]) for error in verdict.reply["errors"]]
    assert errors == [("attributes", 1), ("events", 1), ("events", 2)]
    assert [users_track(one).status for one in ({}, {"events": "x"}, {"events": [event] * 51})] == [400] * 3


def test_a_webhook_needs_events_with_ids() -> None:
    assert webhook({"events": [{"event_id": "a"}]}).accepted == ["a"]
    assert webhook({"events": [{}]}).status == 400


@pytest.mark.parametrize(
    ("changes", "keys", "status"),
    [
        ({}, {}, 201),
        ({"authorization": "Bearer other"}, {"default": "k"}, 401),
        ({"authorization": "Bearer "}, {}, 401),
        ({"authorization": "Basic k"}, {}, 401),
        ({"content-type": "text/plain"}, {}, 400),
        ({"content-type": "application/json; charset=utf-8"}, {}, 201),
        ({}, {"w": "k"}, 201),
    ],
)
def test_bearer_and_content_type_are_checked(changes: dict[str, str], keys: dict[str, str], status: int) -> None:
    assert StandIn(Book(), keys=keys).answer(request(**changes)).status == status


def test_a_workspace_is_told_by_path_or_key_and_a_key_opens_only_its_own() -> None:
    book = Book()
    stand_in = StandIn(book, keys={"a": "k", "b": "other"})
    paths = ["", "/w/a", "/w/b", "/w/c"]
    replies = [stand_in.answer(request(path=f"{path}/campaigns/trigger/send")).status for path in paths]
    assert replies == [201, 201, 401, 401]
    assert {name: one["calls"] for name, one in book.summary()["by_workspace"].items()} == {"a": 2, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(b"{"), 400),
        (request(b"null"), 400),
        (request(b" " * 4_000_001), 413),
        (request(path="/users/delete"), 404),
    ],
)
def test_what_is_no_call_at_all_is_refused(asked: Request, status: int) -> None:
    assert StandIn(Book()).answer(asked).status == status


def test_the_record_is_read_again_but_for_a_torn_line(tmp_path: Path) -> None:
    record = tmp_path / "record.ndjson"
    book = Book(str(record))
    entry = Entry(1, "w", "/p", 201, dict(HEADERS), b"{}", ["0" * 32, "odd", None])
    book.note(entry)
    book.note(entry._replace(status="lost"))
    before = book.summary()
    book.close()
    with record.open("ab") as file:
        file.write(b'{"at":1,"works')
    again = Book(str(record))
    assert again.summary() == before
    assert again.accepted() == {"0" * 32: 2, "odd": 2}
    again.note(entry)
    again.reset()
    again.note(entry)
    assert Book(str(record)).summary()["calls"] == 1
    assert "Bearer" not in record.read_text()


def test_the_script_of_the_documentation_is_sound() -> None:
    text = (Path(__file__).parents[3] / "docs" / "delivery.md").read_text()
    assert len(read_script(text.partition("```yaml\n")[2].partition("```")[0]).rules) == 4
