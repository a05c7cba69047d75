import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.factories import SECRET, any_campaign
from support.launching import Place, any_place

from runners.cli.main import main

SENT = any_campaign(
    audience={"all": ["spend >= 5", {"not": {"list": "lists/legal.csv"}}]},
    experiment={"key": "e", "holdout": 0.1, "variants": [{"key": "a"}, {"key": "b"}]},
    schedule={"start": "2026-04-01T09:00"},
)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """`told(command, …)`: the exit code and what was printed, to either stream."""

    def run(*argv: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(list(argv))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def why(place: Place, told: Any, customer: str, campaign: str = "welcome") -> str:
    code, text = told("why", customer, campaign, "--launch", str(place.output))
    assert code == 0
    return str(text)


def test_why_tells_of_everyone_what_happened_and_what_was_seen(tmp_path: Path, told: Any) -> None:
    place = any_place(tmp_path, SENT, email_consent=lambda n: n % 9 != 4)
    assert place.launch() == 0
    exposed = {row["customer_id"]: row for row in place.exposures()}
    for n in range(0, 300, 7):
        text = why(place, told, f"c-{n}")
        row = exposed.get(f"c-{n}")
        outcome = "not sent, does not match" if row is None else str(row["outcome"]).replace("_", " ")
        assert outcome in text.splitlines()[0]
        assert f"saw spend = {float(n % 100)}" in text
        assert f"consent           email_consent = {n % 9 != 4}" in text
        if row and row["reason"]:
            assert f"({row['reason']})" in text
        if row and row["outcome"] == "emitted":
            assert row["event_id"] in text


def test_why_names_the_list_the_cap_and_the_sharers(tmp_path: Path, told: Any) -> None:
    place = any_place(tmp_path, SENT, any_campaign(id="second", priority=200, schedule={"start": "2026-04-02T09:00"}))
    assert place.launch() == 0
    assert "no  customer_id in lists/legal.csv   saw customer_id = 'c-9'" in why(place, told, "c-9")
    assert "yes customer_id in lists/legal.csv   saw customer_id = 'c-7'" in why(place, told, "c-7")
    capped = next(r["customer_id"] for r in place.exposures() if r["reason"] == "frequency_cap")
    assert "at most 1; 0 before and 1 of this launch within 7 days" in why(place, told, capped, "second")
    shared = next(r["customer_id"] for r in place.exposures() if r["reason"] == "shared_address")
    assert f"shared address    with c-{int(shared[2:]) + 3}" in why(place, told, shared)


def test_why_shows_the_bucket_that_the_exposures_hold_on_the_same_scale(tmp_path: Path, told: Any) -> None:
    experiment = {
        "key": "e",
        "hash": "eppo",
        "namespace": {"key": "n", "range": [0.0, 0.5]},
        "variants": SENT["experiment"]["variants"],
    }
    place = any_place(tmp_path, any_campaign(experiment=experiment))
    assert place.launch() == 0
    for row in place.exposures()[:20]:
        text = why(place, told, row["customer_id"])
        side = "'a', 0 to 0.5" if row["bucket"] < 0.5 else "'b', 0.5 to 1"
        assert 0 <= row["bucket"] < 1
        assert f"variant           bucket {row['bucket']} of eppo, seed 'e': in that of {side}" in text
        assert row["variant"] is None or "]: inside" in text
    assert all(0 <= event["experiment"]["bucket"] < 1 for event in place.events().values())


def test_why_names_the_zone_that_the_times_are_of(tmp_path: Path, told: Any) -> None:
    zones = {0: " europe/BERLIN", 1: "JST", 2: None}
    engine = {"channels": {"email": {"address": "email"}}, "columns": {"time_zone": "zone"},
              "retailers": {"*": {"time_zone": "UTC"}, "store-1": {"time_zone": "Asia/Tokyo"}}}  # fmt: skip
    schedule = {"start": "2026-04-01T14:00Z", "quiet_hours": ["21:00", "08:00"]}
    place = any_place(tmp_path, any_campaign(experiment=None, schedule=schedule), engine=engine, customers=3,
                      zone=lambda n: zones[n])  # fmt: skip
    assert place.launch() == 0
    said = [
        "Europe/Berlin, written ' europe/BERLIN'",
        "Asia/Tokyo, the retailer's: the customer's is 'JST'",
        "UTC, the retailer's",
    ]
    for n, text in enumerate(said):
        assert f"time zone         {text}" in why(place, told, f"c-{n}")
    at = {row["customer_id"]: row["deliver_after"].hour for row in place.exposures()}
    assert at == {"c-0": 14, "c-1": 23, "c-2": 14}
    warnings = json.loads((place.output / "summary.json").read_text())["warnings"]
    (warning,) = [one for one in warnings if one["kind"] == "unknown_time_zone"]
    assert (warning["count"], warning["example"]) == (1, "c-1 of store-1")
    assert "'JST' 1 (such as c-1 of store-1). Their retailer's was used" in warning["text"]


def test_why_counts_earlier_sends_as_the_launch_does(tmp_path: Path, told: Any) -> None:
    history = pa.table({
        "customer_id": ["c-50", "c-51", "c-50"], "retailer_id": ["store-2", "store-0", "store-2"],
        "channel": ["email", "email", "sms"], "sent_at": pa.array([1_774_900_000_000, 1_700_000_000_000, 1_774_900_000_000], pa.timestamp("ms")),
    })  # fmt: skip
    pq.write_table(history, tmp_path / "history.parquet")
    place = any_place(tmp_path, any_campaign(experiment=None, schedule={"start": "2026-04-01T09:00"}))
    assert place.launch(f"--history={tmp_path / 'history.parquet'}") == 0
    assert {r["customer_id"] for r in place.exposures() if r["reason"] == "frequency_cap"} == {"c-50"}
    assert "at most 1; 1 before" in why(place, told, "c-50")
    assert "at most 1; 0 before" in why(place, told, "c-51")


def test_questions_are_answered_after_the_campaign_was_edited_and_without_the_secret(
    tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = any_place(tmp_path)
    assert place.launch() == 0
    (tmp_path / "campaigns" / "codes.yaml").write_text("id: no campaign any more")
    (tmp_path / "campaigns" / "lists" / "legal.csv").unlink()
    monkeypatch.delenv("CAMPAIGNS_CODE_SECRET")
    assert told("check", str(place.output))[0] == 0
    assert told("report", str(place.output))[0] == 0
    assert "saw spend" in why(place, told, "c-9", "codes")


def test_check_why_preview_and_validate_give_their_data_as_json(tmp_path: Path, capsys: Any) -> None:
    place = any_place(tmp_path, SENT)
    assert place.launch() == 0
    folder, customers = f"--campaigns={tmp_path / 'campaigns'}", f"--customers={tmp_path / 'customers.parquet'}"

    def data(*argv: str) -> Any:
        capsys.readouterr()
        assert main([*argv, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    check = data("check", str(place.output))
    assert (check["launch_id"], check["batches_done"], check["batches"]) == ("launch-1", 1, 1)
    assert {finding["check"]: finding["holds"] for finding in check["findings"]}["events"] is True
    (emitted,) = [row for row in place.exposures() if row["outcome"] == "emitted"][:1]
    (why,) = data("why", emitted["customer_id"], "welcome", "--launch", str(place.output))
    assert why["recorded"]["event_id"] == emitted["event_id"]
    assert (why["audience"]["passed"], why["receipts"]) == (True, None)
    assert {fact["name"] for fact in why["assignment"]} >= {"campaign holdout", "variant"}
    preview = data("preview", "welcome", folder, customers, "--samples=2")
    assert (len(preview["events"]), preview["refused"]) == (2, False)
    assert preview["summary"]["campaigns"][0]["emitted"] == sum(r["outcome"] == "emitted" for r in place.exposures())
    assert data("validate", folder, customers)["campaigns"] == ["welcome"]


def test_questions_about_customers_that_have_changed_are_refused(tmp_path: Path, told: Any) -> None:
    place = any_place(tmp_path)
    assert place.launch() == 0
    any_place(tmp_path, customers=299)
    code, text = told("check", str(place.output))
    assert code == 2
    assert "the customers have changed since" in text


@pytest.mark.parametrize(
    ("argv", "told_"),
    [
        (("why", "nobody", "codes"), "has no such customer"),
        (("why", "c-9", "nothing"), "this launch has: codes, listed, text"),
    ],
    ids=["an unknown customer", "an unknown campaign"],
)
def test_why_refuses(tmp_path: Path, told: Any, argv: tuple[str, ...], told_: str) -> None:
    place = any_place(tmp_path)
    assert place.launch() == 0
    code, text = told(*argv, "--launch", str(place.output))
    assert code == 2
    assert told_ in text


def test_a_folder_without_a_launch_is_told(tmp_path: Path, told: Any) -> None:
    code, text = told("check", str(tmp_path))
    assert code == 2
    assert "holds no launch" in text


TAMPERED = ["an event file is gone", "an exposure is gone", "an exposure is another", "the summary was edited"]


@pytest.mark.parametrize("damage", TAMPERED)
def test_check_finds_it_when(tmp_path: Path, told: Any, damage: str) -> None:
    place = any_place(tmp_path)
    assert place.launch("--batch_rows=100") == 0
    assert told("check", str(place.output))[0] == 0
    exposures = sorted((place.output / "exposures").glob("*.parquet"))[0]
    table = pq.read_table(exposures)
    if damage == "an event file is gone":
        event_file = sorted((tmp_path / "events").glob("*.avro"))[0]
        event_file.write_bytes(sorted((tmp_path / "events").glob("*.avro"))[1].read_bytes())
    elif damage == "an exposure is gone":
        pq.write_table(table.slice(1), exposures)
    elif damage == "an exposure is another":
        outcomes = table["outcome"].cast(pa.string()).to_pylist()
        outcomes[outcomes.index("emitted")] = "suppressed"
        place_of = table.schema.get_field_index("outcome")
        changed = table.set_column(place_of, "outcome", pa.array(outcomes).dictionary_encode())
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), exposures)
    else:
        summary = json.loads((place.output / "summary.json").read_text())
        summary["campaigns"][0]["emitted"] += 1
        (place.output / "summary.json").write_text(json.dumps(summary))
    code, text = told("check", str(place.output))
    assert code == 1
    assert "WRONG" in text


def test_a_preview_publishes_nothing_and_shows_what_would_happen(tmp_path: Path, told: Any) -> None:
    place = any_place(tmp_path, customers=100, first_name=lambda n: None if n % 2 else f"Name {n}")
    code, text = told("preview", "text", "--campaigns", str(tmp_path / "campaigns"),
                      "--customers", str(tmp_path / "customers.parquet"), "--samples", "1")  # fmt: skip
    assert code == 0
    assert "would be sent" in text
    assert "variant a: weight 50.0%" in text
    assert "matched customers have no value here, such as c-" in text
    assert text.count('"event_id"') == 1
    assert not (tmp_path / "events").exists()
    assert not place.output.exists()


def test_a_preview_of_fewer_than_no_samples_is_refused(tmp_path: Path, told: Any) -> None:
    code, text = told("preview", "text", "--campaigns", str(tmp_path), "--customers", "none", "--samples=-1")
    assert code == 2
    assert "--samples = -1" in text


def test_a_preview_of_an_unknown_campaign_names_those_there_are(tmp_path: Path, told: Any) -> None:
    any_place(tmp_path)
    code, text = told("preview", "nothing", "--campaigns", str(tmp_path / "campaigns"),
                      "--customers", str(tmp_path / "customers.parquet"))  # fmt: skip
    assert code == 2
    assert "codes, listed, text" in text


def test_the_codes_of_a_launch_are_verified_without_a_look_up(tmp_path: Path, told: Any) -> None:
    place = any_place(tmp_path)
    assert place.launch() == 0
    event = next(
        e
        for e in place.events().values()
        if e["campaign_id"] == "codes" and e["offers"] and e["offers"][0]["id"] == "five"
    )
    code, argv = event["offers"][0]["code"], ("--launch", str(place.output), "--offer", "five")
    assert told("verify-code", code, *argv)[0] == 0
    assert (
        told(
            "verify-code", code.lower(), *argv, "--retailer", event["retailer_id"], "--customer", event["customer_id"]
        )[0]
        == 0
    )
    assert told("verify-code", code, *argv, "--retailer", event["retailer_id"], "--customer", "c-999")[0] == 1
    assert told("verify-code", ("A" if code[0] != "A" else "B") + code[1:], *argv)[0] == 1


@pytest.mark.parametrize("kind", ["campaign", "engine", "audience"])
def test_every_configuration_has_a_json_schema(told: Any, kind: str) -> None:
    code, text = told("json-schema", kind)
    assert code == 0
    assert json.loads(text)["additionalProperties"] is False


def test_a_schema_is_shown(tmp_path: Path, told: Any) -> None:
    any_place(tmp_path)
    code, text = told("schema", str(tmp_path / "customers.parquet"))
    assert code == 0
    assert text.splitlines()[0].split() == ["column", "type", "nulls", "examples"]
    assert any(line.split()[:3] == ["spend", "double", "0.0%"] for line in text.splitlines())


def test_the_exit_codes_of_verify_code_are_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify-code", "--help"])
    assert "Exit code 0: it is. 1: it is not. 2: the question is wrong" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"--offer": "fiev"}, 2, "did you mean five?"),
        ({"--offer": "one"}, 2, "its codes are not derived (fixed)"),
        ({"--launch": "out/none"}, 2, "holds no launch"),
        ({"--secret-env": "ANOTHER"}, 2, "ANOTHER = another secret"),
        ({"--secret-env": "NOT_SET"}, 2, "NOT_SET = missing"),
        ({"--customer": "c-1"}, 2, "--retailer = missing"),
        ({"--retailer": "store-1"}, 2, "--customer = missing"),
        ({"CODE": "0"}, 1, "a character is wrong or missing"),
        ({"--launch": "launch-2"}, 1, "give the launch's folder as --launch"),
        ({"--launch": "launch-1"}, 0, "genuine for the offer five"),
    ],
)
def test_what_is_asked_wrongly_is_told_from_a_code_that_is_not_genuine(
    tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], code: int, said: str
) -> None:
    monkeypatch.setenv("ANOTHER", SECRET[::-1] + "another")
    place = any_place(tmp_path)
    assert place.launch() == 0
    genuine = next(o["code"] for e in place.events().values() for o in e["offers"] if o["id"] == "five")
    asked = {"CODE": genuine, "--launch": str(place.output), "--offer": "five"} | changes
    argv = [asked.pop("CODE"), *(f"{name}={value}" for name, value in asked.items())]
    found, text = told("verify-code", *argv)
    assert (found, said in text) == (code, True), text
